//! Reading the few bytes of a state file with as few calls as can be.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The text of a regular file that is usually shorter than a page.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut bytes = [0; 4096];
    let len = File::open(path)?.read_at(&mut bytes, 0)?;
    if len == bytes.len() {
        return fs::read_to_string(path);
    }
    let text = std::str::from_utf8(&bytes[..len]).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_any_length_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for len in [0, 1, 4095, 4096, 10_000] {
            fs::write(&path, "x".repeat(len)).unwrap();
            assert_eq!(read(&path).unwrap().len(), len);
        }
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

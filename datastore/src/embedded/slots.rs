//! The pair of slots as seen by one opener: what is current, and reads from it.
//!
//! Nothing here locks; the caller holds the store's lock, shared to read and exclusive to write.

use super::commit::COMMIT;
use super::disk::{Disk, File, Syncer};
use super::frame::Seed;
use super::header::{self, Choice, Doubt, Header, LOG_AT, SECTOR};
use super::loaded::{Loaded, entry};
use super::mark::{self, Mark};
use super::record::Item;
use super::{Layout, READ, damage, failed, missing};
use crate::Error;
use model::store::{Entry, Query, Revision, View};

pub(super) struct Slots {
    pub disk: Box<dyn Disk>,
    pub layout: Layout,
    pub loaded: Option<Loaded>,
}

/// A sync that is to be done without any lock.
pub(super) struct Pending {
    pub sync: Syncer,
    pub file: File,
    pub seed: Seed,
    pub end: u64,
    pub revision: Revision,
}

impl Slots {
    pub fn new(disk: Box<dyn Disk>, layout: Layout) -> Self {
        Self { disk, layout, loaded: None }
    }

    /// Neither slot has a header; a first look without the lock.
    pub fn looks_empty(&self) -> Result<bool, Error> {
        let blank = |found| matches!(found, header::Found::Absent | header::Found::Zeros);
        Ok(blank(self.read_header(File::A)?) && blank(self.read_header(File::B)?))
    }

    /// Neither slot was ever completed. Fails where the headers are blank but the files are not.
    pub fn is_empty(&self) -> Result<bool, Error> {
        let empty = self.choose()? == Choice::Empty;
        if empty {
            self.check_blank()?;
        }
        Ok(empty)
    }

    /// Takes notice of what others did since the last call.
    pub fn refresh(&mut self) -> Result<(), Error> {
        let Choice::Slot { file, header, retire_other } = self.choose()? else {
            self.loaded = None;
            self.check_blank()?;
            return Err(missing(self.place()));
        };
        let known = self.loaded.as_ref().is_some_and(|l| l.file == file && l.header.seed() == header.seed());
        if !known {
            self.loaded = None;
            check_length(&*self.disk, file, &header)?;
            self.loaded = Some(Loaded::new(file, header));
        }
        let mark = self.read_mark();
        let loaded = self.loaded.as_mut().expect("set above");
        loaded.retire_other = retire_other;
        loaded.read_on(&*self.disk, mark)
    }

    /// The current slot. Call `refresh` first.
    pub fn loaded(&self) -> Result<&Loaded, Error> {
        self.loaded.as_ref().ok_or_else(|| missing(self.place()))
    }

    /// The current slot, ready to be read from. Call `refresh` first.
    pub fn ready(&mut self) -> Result<(&Loaded, &dyn Disk), Error> {
        let place = self.place();
        let loaded = self.loaded.as_mut().ok_or_else(|| missing(place))?;
        loaded.read_index(&*self.disk)?;
        Ok((loaded, &*self.disk))
    }

    pub fn get(&mut self, key: &str) -> Result<Option<Entry>, Error> {
        let (loaded, disk) = self.ready()?;
        loaded.get(disk, key)
    }

    pub fn list(&mut self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        self.each(prefix, |item| entries.push(entry(item)))?;
        Ok(entries)
    }

    pub fn keys(&mut self, prefix: &str) -> Result<Vec<String>, Error> {
        let mut keys = Vec::new();
        self.each(prefix, |item| keys.push(item.key.to_owned()))?;
        Ok(keys)
    }

    fn revisions(&mut self, prefix: &str) -> Result<Vec<(String, Revision)>, Error> {
        let mut keys = Vec::new();
        self.each(prefix, |item| keys.push((item.key.to_owned(), item.revision)))?;
        Ok(keys)
    }

    /// Answers from the state of the last refresh.
    pub fn answer(&mut self, queries: &[Query], view: &mut View) -> Result<(), Error> {
        for query in queries {
            match query {
                Query::Get(key) => view.put(key, self.get(key)?),
                Query::List(prefix) => view.put_list(prefix, self.list(prefix)?),
                Query::Keys(prefix) => view.put_keys(prefix, self.revisions(prefix)?),
                Query::Room(key) => view.put_room(key, self.get(key)?),
            }
        }
        Ok(())
    }

    /// As `answer`, if that state is there and still readable.
    pub fn answer_known(&mut self, queries: &[Query], view: &mut View) -> Option<()> {
        self.loaded.as_ref()?;
        self.answer(queries, view).ok()
    }

    fn each(&mut self, prefix: &str, mut f: impl FnMut(Item)) -> Result<(), Error> {
        let (loaded, disk) = self.ready()?;
        loaded.merge(disk, prefix, &loaded.layer(prefix), |item| {
            f(item);
            Ok(())
        })
    }

    pub fn read_header(&self, file: File) -> Result<header::Found, Error> {
        let mut sector = [0; SECTOR];
        let read = self.disk.read_at(file, &mut sector, 0);
        let read = read.map_err(|e| failed(&*self.disk, file, READ, &e))?;
        Ok(header::read(&sector[..read]))
    }

    pub fn read_mark(&self) -> Option<Mark> {
        let mut bytes = [0; mark::SIZE];
        let read = self.disk.read_at(File::Mark, &mut bytes, 0).ok()?;
        Mark::decode(&bytes[..read])
    }

    /// What must still be synced before anything that was read may be answered; nothing where somebody
    /// else did it meanwhile.
    pub fn pending(&mut self) -> Result<Option<Pending>, Error> {
        let mark = self.read_mark();
        let Some(loaded) = &mut self.loaded else { return Ok(None) };
        let (file, seed) = (loaded.file, loaded.header.seed());
        match mark {
            Some(m) if m.seed == seed && m.end >= LOG_AT => loaded.note_synced(m.end, m.revision),
            // A newer slot was written whole, with all that this one held, and synced.
            Some(m) if m.seed.id == seed.id && m.seed.generation > seed.generation => return Ok(None),
            _ => {}
        }
        if loaded.is_durable() {
            return Ok(None);
        }
        let (end, revision) = (loaded.end(), loaded.revision);
        let sync = self.disk.syncer(file).map_err(|e| failed(&*self.disk, file, COMMIT, &e))?;
        Ok(Some(Pending { sync, file, seed, end, revision }))
    }

    /// Notes that `pending` was synced. Others may have noted more meanwhile.
    pub fn synced(&mut self, seed: Seed, end: u64, revision: Revision) {
        let mark = self.read_mark();
        if let Some(loaded) = self.loaded.as_mut().filter(|loaded| loaded.header.seed() == seed) {
            loaded.note_synced(end, revision);
        }
        let noted = match mark {
            Some(m) if m.seed != seed || m.end >= end => return,
            Some(m) => Mark { end, revision, ..m },
            None => Mark { seed, end, revision, written: end },
        };
        drop(self.disk.write_at(File::Mark, &noted.encode(), 0));
    }

    fn choose(&self) -> Result<Choice, Error> {
        let (a, b) = (self.read_header(File::A)?, self.read_header(File::B)?);
        header::choose(a, b).map_err(|doubt| self.doubtful(doubt))
    }

    fn doubtful(&self, doubt: Doubt) -> Error {
        let (file, what) = match doubt {
            Doubt::Bad(file) => (file, "the header is damaged".to_owned()),
            Doubt::Unknown(file, version) => {
                (file, format!("format version {version} is newer than this program; use the newer one"))
            }
            Doubt::Lost(file) => (file, "the file is missing or cut short".to_owned()),
            Doubt::Superseded(file) => (file, "superseded, and its successor is gone".to_owned()),
            Doubt::HalfLoaded(file) => (file, "a load was cut off; load again".to_owned()),
            Doubt::Unrelated => (File::A, "slots a and b do not belong together".to_owned()),
        };
        damage(&*self.disk, file, 0, &what)
    }

    /// Blank headers mean a store that was never completed only if nothing else is there either.
    fn check_blank(&self) -> Result<(), Error> {
        for file in [File::A, File::B] {
            if let Some(at) = first_nonzero(&*self.disk, file)? {
                return Err(damage(&*self.disk, file, at, "there is data under a blank header"));
            }
        }
        match self.read_mark() {
            Some(_) => Err(damage(&*self.disk, File::A, 0, "the store's content is gone")),
            None => Ok(()),
        }
    }

    pub fn place(&self) -> std::path::PathBuf {
        let file = self.disk.path(File::A);
        file.parent().map_or_else(|| file.clone(), std::path::Path::to_owned)
    }
}

fn check_length(disk: &dyn Disk, file: File, header: &Header) -> Result<(), Error> {
    let len = disk.len(file).map_err(|e| failed(disk, file, READ, &e))?;
    if len >= header.data_end {
        return Ok(());
    }
    Err(damage(disk, file, len, &format!("the file is cut short of {} bytes", header.data_end)))
}

fn first_nonzero(disk: &dyn Disk, file: File) -> Result<Option<u64>, Error> {
    let mut chunk = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let read = disk.read_at(file, &mut chunk, at).map_err(|e| failed(disk, file, READ, &e))?;
        match chunk[..read].iter().position(|b| *b != 0) {
            Some(found) => return Ok(Some(at + found as u64)),
            None if read < chunk.len() => return Ok(None),
            None => at += read as u64,
        }
    }
}

//! Which attachments the runtime still knows, for GC (spec 1.1.0, "GC").

use crate::fields::{At, Fields};

/// Container and interface of an attachment on this network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId {
    pub container_id: String,
    pub ifname: String,
}

/// `cni.dev/valid-attachments`, and the older `cni.dev/attachments`. Absence and emptiness are not
/// the same: an absent list frees nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ValidAttachments {
    /// Neither key is there: the runtime said nothing, nothing may be freed.
    #[default]
    Absent,
    /// The list is `null`: none is valid.
    Null,
    /// These are valid; `[]` means none. With both keys, either one keeps an attachment.
    Listed(Vec<AttachmentId>),
}

impl ValidAttachments {
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        let older = Self::read_key(fields, "cni.dev/attachments");
        match (Self::read_key(fields, "cni.dev/valid-attachments"), older) {
            (Self::Listed(mut new), Self::Listed(old)) => {
                new.extend(old);
                Self::Listed(new)
            }
            (Self::Listed(list), _) | (_, Self::Listed(list)) => Self::Listed(list),
            (Self::Null, _) | (_, Self::Null) => Self::Null,
            (Self::Absent, Self::Absent) => Self::Absent,
        }
    }

    fn read_key(fields: &Fields<'_>, key: &str) -> Self {
        match fields.raw(key) {
            None => Self::Absent,
            Some(value) if value.is_null() => Self::Null,
            Some(_) => {
                let items = fields.get(key, At::items_unbounded).unwrap_or_default();
                Self::Listed(items.iter().filter_map(AttachmentId::read).collect())
            }
        }
    }

    /// What is valid, or `None` where nothing was said.
    pub fn listed(&self) -> Option<&[AttachmentId]> {
        match self {
            Self::Absent => None,
            Self::Null => Some(&[]),
            Self::Listed(list) => Some(list),
        }
    }
}

impl AttachmentId {
    /// Both parts must be there: a half-read entry would free what it names.
    fn read(at: &At<'_>) -> Option<Self> {
        let fields = at.fields()?;
        for key in ["containerID", "ifname"] {
            if fields.at(key).is_none() {
                fields.problem(key, "a text", "nothing");
            }
        }
        Some(Self { container_id: fields.string("containerID")?, ifname: fields.string("ifname")? })
    }
}

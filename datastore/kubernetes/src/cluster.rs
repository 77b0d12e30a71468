//! The cluster: its objects one by one, and what was last seen of them.

use crate::blocks;
use crate::config::Config;
use crate::error::Failure;
use crate::generation::Generation;
use crate::link::{Answer, Call, Calls, Link};
use crate::object::Object;
use crate::place::{Kind, Place};
use datastore::ErrorKind;
use http::Method;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Mutex;

/// Objects remembered; an object of a usual block takes about 20 kB.
const REMEMBERED: usize = 512;

pub(crate) struct Cluster {
    pub link: Link,
    pub generation: Generation,
    subject: String,
    /// Objects as last read or written: a write must send again what others keep in them. By key;
    /// of use only where the revision is the expected one.
    seen: Mutex<HashMap<String, Object>>,
    blocks: Mutex<blocks::Seen>,
}

impl Cluster {
    pub async fn new(config: &Config) -> Result<Self, Failure> {
        let seen = Mutex::new(HashMap::new());
        let (link, generation) = (Link::new(config).await?, Generation::default());
        Ok(Self { link, generation, subject: config.subject(), seen, blocks: Mutex::default() })
    }

    pub fn subject(&self) -> &str {
        &self.subject
    }

    pub fn calls(&self) -> Calls {
        self.link.calls()
    }

    /// The cluster's identity.
    pub async fn id(&self) -> Result<String, Failure> {
        let answer = self.link.call(&Call::get("/api/v1/namespaces/kube-system".to_owned())).await?;
        if !answer.is_success() {
            return Err(answer.failure());
        }
        let uid = answer.json()?.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        uid.ok_or_else(|| Failure::corrupt("the namespace kube-system has no UID"))
    }

    /// The object as the server has it, its deletion begun or not.
    pub async fn fetch(&self, place: &Place) -> Result<Option<Object>, Failure> {
        if !place.legal {
            return Ok(None);
        }
        let found = self.link.call(&Call::get(place.path())).await.and_then(|answer| match answer.code {
            404 => is_resource_there(&answer).map(|()| None),
            _ if answer.is_success() => Ok(Some(answer)),
            _ => Err(answer.failure()),
        });
        match found {
            Ok(Some(answer)) => self.remember(place, &answer),
            Ok(None) => {
                self.forget(&place.key);
                Ok(None)
            }
            Err(failure) if self.lacks(place.kind, &failure).await? => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Whether a read failed because this cluster does not have the kind, which then has no objects: an older Calico's
    /// has no reservations, and one without our definitions no records. An account that has never heard of a kind is
    /// refused before it is told that there is none.
    pub async fn lacks(&self, kind: &Kind, failure: &Failure) -> Result<bool, Failure> {
        if !kind.is_optional() {
            return Ok(false);
        }
        match failure.kind {
            ErrorKind::Missing => Ok(true),
            ErrorKind::Denied => {
                let (code, names) = self.link.resources(kind.api).await?;
                Ok(code == 404 || code == 200 && !names.iter().any(|name| name == kind.plural))
            }
            _ => Ok(false),
        }
    }

    /// The object in an answer. One under the same name but another key is none.
    pub fn remember(&self, place: &Place, answer: &Answer) -> Result<Option<Object>, Failure> {
        let object = Object::read(place.kind, answer.json()?);
        if let Some(object) = &object {
            self.note(object);
        }
        Ok(object.filter(|object| object.key == place.key))
    }

    pub fn note(&self, object: &Object) {
        if object.kind.shape.is_fleeting() {
            return;
        }
        self.blocks().note(object);
        let mut seen = self.seen();
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(object.key.clone(), object.clone());
    }

    pub fn blocks(&self) -> std::sync::MutexGuard<'_, blocks::Seen> {
        self.blocks.lock().expect("nobody panics while holding it")
    }

    pub fn forget(&self, key: &str) {
        self.seen().remove(key);
    }

    /// The object at exactly this revision, if it was seen.
    pub fn seen_at(&self, key: &str, revision: u64) -> Option<Object> {
        self.seen().get(key).filter(|object| object.revision == revision).cloned()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<String, Object>> {
        self.seen.lock().expect("nobody panics while holding the objects")
    }

    /// Deletes exactly this object at exactly this revision. The answer is 200 or 202; 404 or 409 if
    /// there is no such object any more.
    pub async fn delete_exactly(&self, place: &Place, object: &Object) -> Result<Answer, Failure> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": object.uid, "resourceVersion": object.revision.to_string()},
        });
        self.forget(&place.key);
        self.blocks().forget(object);
        self.link.call(&Call::with(Method::DELETE, place.path(), &options)).await
    }
}

/// 404 stands for a missing object and for a missing resource; only the former names the object.
fn is_resource_there(answer: &Answer) -> Result<(), Failure> {
    let status: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match status.pointer("/details/name") {
        Some(_) => Ok(()),
        None => Err(answer.failure()),
    }
}

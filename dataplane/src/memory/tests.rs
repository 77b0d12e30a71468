use super::*;
use datastore::embedded::{Embedded, Mode};
use model::store::Expect;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn put(store: &dyn Store, key: &str, value: &str) {
    let write = Write { key: key.into(), expect: Expect::Any, value: Some(value.into()) };
    store.commit(&[write], soon()).unwrap();
}

fn get(memory: &Memory, key: &str, age: Age) -> Option<String> {
    let mut view = View::new();
    memory.fetch(&[Query::Get(key.into())], age, &mut view, soon()).unwrap();
    view.get(key).unwrap().map(|entry| String::from_utf8(entry.value.clone()).unwrap())
}

fn wait_for(what: impl Fn() -> bool) {
    let deadline = soon();
    while !what() {
        assert!(!deadline.left().is_zero(), "it did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `test` with a memory whose watches have told everything, and the store behind it.
fn with_memory(test: impl FnOnce(&Memory, &Arc<dyn Store>)) {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(dir.path(), Mode::Create).unwrap());
    put(store.as_ref(), &keys::pool("one"), "1");
    let memory = Arc::new(Memory::of_cluster(store.clone(), "n1", &Metrics::default()));
    let shutdown = Shutdown::new().unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| memory.run(&shutdown));
        wait_for(|| memory.mirrors.iter().all(|mirror| mirror.state().synced));
        test(&memory, &store);
        shutdown.set();
    });
}

#[test]
fn what_is_watched_is_answered_from_memory_and_the_rest_by_the_store() {
    with_memory(|memory, store| {
        put(store.as_ref(), &keys::node("n1"), "me");
        put(store.as_ref(), &keys::node("n10"), "another");
        wait_for(|| get(memory, &keys::node("n1"), Age::Watched).is_some());
        let before = memory.reads.get();
        assert_eq!(get(memory, &keys::pool("one"), Age::Watched).unwrap(), "1");
        assert_eq!(get(memory, &keys::pool("two"), Age::Before), None);
        let mut view = View::new();
        memory.fetch(&[Query::List(keys::pools())], Age::Watched, &mut view, soon()).unwrap();
        assert_eq!(view.keys(&keys::pools()).unwrap(), [keys::pool("one")]);
        assert_eq!(memory.reads.get(), before);
        assert_eq!(get(memory, &keys::node("n10"), Age::Watched).unwrap(), "another");
        assert_eq!(get(memory, &keys::pool("one"), Age::Now).unwrap(), "1");
        assert_eq!(memory.reads.get(), before + 2);
    });
}

#[test]
fn changes_of_others_come_by_the_watch_and_own_ones_at_once() {
    with_memory(|memory, store| {
        put(memory, &keys::pool("one"), "2");
        assert_eq!(get(memory, &keys::pool("one"), Age::Watched).unwrap(), "2");
        put(store.as_ref(), &keys::pool("one"), "3");
        wait_for(|| get(memory, &keys::pool("one"), Age::Watched).unwrap() == "3");
        let gone = Write { key: keys::pool("one"), expect: Expect::Any, value: None };
        store.commit(&[gone], soon()).unwrap();
        wait_for(|| get(memory, &keys::pool("one"), Age::Watched).is_none());
    });
}

#[test]
fn a_conflict_teaches_and_an_older_event_does_not() {
    with_memory(|memory, store| {
        put(store.as_ref(), &keys::pool("one"), "2");
        let wrong = Write { key: keys::pool("one"), expect: Expect::Absent, value: Some("x".into()) };
        assert!(memory.commit(&[wrong], soon()).is_err());
        assert_eq!(get(memory, &keys::pool("one"), Age::Watched).unwrap(), "2");
    });
    let mirror = Mirror::new(keys::pools(), false);
    let entry = |revision| Entry { key: keys::pool("p"), value: vec![], revision };
    mirror.take(Event::Put(entry(5)));
    mirror.take(Event::Put(entry(4)));
    assert_eq!(mirror.state().entries[&keys::pool("p")].revision, 5);
}

#[test]
fn a_mirror_answers_only_after_everything_was_told() {
    let mirror = Mirror::new(keys::pools(), false);
    let query = Query::Get(keys::pool("p"));
    assert!(!mirror.answer(&query, &mut View::new()));
    mirror.take(Event::Synced);
    assert!(mirror.answer(&query, &mut View::new()));
    mirror.take(Event::Reset);
    assert!(!mirror.answer(&query, &mut View::new()));
}

//! A disk in memory: every plan is cut off after every step, and whoever comes next must find a way.

use super::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Disk {
    files: BTreeMap<PathBuf, Content>,
    saved: BTreeSet<Hash>,
    records: Records,
}

fn content(text: &str) -> Content {
    Content { sha256: Hash(text.to_owned()), mode: 0o755 }
}

fn want(path: &str, text: &str, kind: Kind) -> Want {
    let from = From::Bytes(text.into());
    Want { path: path.into(), kind, content: content(text), from, keep_existing: false }
}

/// Our plugins, a shared one, and the configuration.
fn wish(version: &str) -> Wish {
    let text = |name: &str| format!("{name} {version}");
    Wish {
        files: vec![
            want("/bin/portmap", &text("portmap"), Kind::Plugin),
            want("/bin/percale-ipam", &text("percale"), Kind::Plugin),
            want("/bin/percale", &text("percale"), Kind::Plugin),
            want("/net.d/percale-kubeconfig", &text("token"), Kind::Kubeconfig),
            want("/net.d/10-percale.conflist", &text("conf"), Kind::Conflist),
        ],
        ..Wish::default()
    }
}

/// As `--take-over` with a configuration of its own.
fn take_over(version: &str) -> Wish {
    let mut wish = wish(version);
    let text = format!("percale {version}");
    wish.files.insert(0, want("/bin/calico", &text, Kind::Plugin));
    wish.files.insert(0, want("/bin/calico-ipam", &text, Kind::Plugin));
    wish.absent.push(("/net.d/10-calico.conflist".into(), Kind::Conflist));
    wish.taken_over = true;
    wish
}

impl Disk {
    /// Debian's portmap, and Calico as its installer leaves it.
    fn with_others() -> Self {
        let files = [
            ("/bin/portmap", "debian's portmap"),
            ("/bin/calico", "calico"),
            ("/bin/calico-ipam", "calico"),
            ("/net.d/10-calico.conflist", "calico's conf"),
        ];
        let files = files.into_iter().map(|(path, text)| (path.into(), content(text)));
        Self { files: files.collect(), ..Self::default() }
    }

    fn plan(&self, wish: &Wish) -> Plan {
        let dirs = ["/bin", "/net.d"].map(PathBuf::from).into();
        let (files, saved) = (self.files.clone(), self.saved.clone());
        let observed = Observed { files, dirs, leftovers: Vec::new(), saved };
        plan(&observed, &self.records, wish, "test")
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Save { path, sha256 } => {
                assert_eq!(self.files[path].sha256, *sha256, "what is saved is what is there");
                self.saved.insert(sha256.clone());
            }
            Step::Place { path, content, from, .. } => {
                assert!(
                    *from != From::Saved || self.saved.contains(&content.sha256),
                    "{path:?} cannot come back"
                );
                self.files.insert(path.clone(), content.clone());
            }
            Step::Remove { path, .. } => drop(self.files.remove(path)),
            Step::SetMode { path, mode } => self.files.get_mut(path).unwrap().mode = *mode,
            Step::MakeDir { .. } | Step::Sweep { .. } | Step::Keep { .. } => {}
        }
    }

    /// Carries the plan out up to a step, as `execute` does; `None` means to its end.
    fn carry_out(&mut self, wish: &Wish, until: Option<usize>) -> bool {
        let plan = self.plan(wish);
        let (saves, rest): (Vec<&Step>, Vec<&Step>) =
            plan.steps.iter().partition(|step| matches!(step, Step::Save { .. }));
        let mut left = until.unwrap_or(usize::MAX);
        for step in saves {
            if left == 0 {
                return false;
            }
            left -= 1;
            self.step(step);
        }
        self.records.pending = Some(plan.target.clone());
        for step in rest {
            if left == 0 {
                return false;
            }
            left -= 1;
            self.step(step);
            self.check();
        }
        if left == 0 {
            return false;
        }
        self.records = completed(&self.records, plan.target);
        let wanted = referenced(&self.records);
        self.saved.retain(|sha256| wanted.contains(sha256));
        true
    }

    /// Whatever configuration is there has its plugins.
    fn check(&self) {
        let has = |path: &str| self.files.contains_key(Path::new(path));
        if has("/net.d/10-percale.conflist") {
            assert!(has("/bin/percale") && has("/bin/percale-ipam"), "{self:?}");
        }
        if has("/net.d/10-calico.conflist") {
            assert!(has("/bin/calico") && has("/bin/calico-ipam"), "{self:?}");
        }
    }

    fn same_files(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

/// A wish for the present records.
type Asked<'a> = &'a dyn Fn(&Records) -> Wish;

/// Cuts `asked` off after every step. Whoever comes next (`then`) must reach what it would have
/// reached without the crash.
fn cut_off_everywhere(start: &Disk, asked: Asked<'_>, then: Asked<'_>, reached: &Disk) -> usize {
    for cut in 0..200 {
        let mut disk = start.clone();
        let done = disk.carry_out(&asked(&disk.records), Some(cut));
        let wish = then(&disk.records);
        disk.carry_out(&wish, None);
        assert!(disk.same_files(reached), "cut after {cut}: {:#?}\nnot {:#?}", disk.files, reached.files);
        if done {
            return cut;
        }
    }
    panic!("no end");
}

fn after(start: &Disk, asked: Asked<'_>) -> Disk {
    let mut disk = start.clone();
    let wish = asked(&disk.records);
    assert!(disk.carry_out(&wish, None));
    disk
}

#[test]
fn each_mode_is_resumed_after_a_crash_at_any_step() {
    let fresh = Disk::with_others();
    let first = after(&fresh, &|_| wish("1"));
    let second = after(&first, &|_| wish("2"));
    let taken = after(&fresh, &|_| take_over("1"));
    let modes: [(&str, &Disk, Asked<'_>); 7] = [
        ("install", &fresh, &|_| wish("1")),
        ("upgrade", &first, &|_| wish("2")),
        ("roll back", &second, &|records| rolled_back(records).unwrap()),
        ("uninstall", &second, &restored),
        ("take over", &fresh, &|_| take_over("1")),
        ("take over after an installation", &first, &|_| take_over("2")),
        ("give back", &taken, &restored),
    ];
    for (name, start, asked) in modes {
        let reached = after(start, asked);
        let cuts = cut_off_everywhere(start, asked, asked, &reached);
        assert!(cuts > 3, "{name}: only {cuts} steps");
    }
}

#[test]
fn a_half_done_upgrade_is_rolled_back_to_the_old_set() {
    let first = after(&Disk::with_others(), &|_| wish("1"));
    let mut reached = first.clone();
    // The token stays as it is now.
    for cut in 0..100 {
        let mut disk = first.clone();
        if disk.carry_out(&wish("2"), Some(cut)) {
            return;
        }
        if disk.records.pending.is_none() {
            continue;
        }
        let kubeconfig = PathBuf::from("/net.d/percale-kubeconfig");
        reached.files.insert(kubeconfig.clone(), disk.files[&kubeconfig].clone());
        let back = rolled_back(&disk.records).unwrap();
        disk.carry_out(&back, None);
        assert!(disk.same_files(&reached), "cut after {cut}: {:#?}", disk.files);
    }
}

#[test]
fn everything_of_others_comes_back() {
    let fresh = Disk::with_others();
    for wishes in
        [vec![wish("1"), wish("2")], vec![wish("1"), take_over("2"), take_over("3")], vec![take_over("1")]]
    {
        let mut disk = fresh.clone();
        for wish in &wishes {
            disk.carry_out(wish, None);
        }
        let none = restored(&disk.records);
        disk.carry_out(&none, None);
        assert!(disk.same_files(&fresh), "{:#?}", disk.files);
    }
}

#[test]
fn the_others_newest_version_comes_back() {
    let mut disk = after(&Disk::with_others(), &|_| take_over("1"));
    disk.files.insert("/bin/calico".into(), content("newer calico"));
    disk.files.insert("/bin/percale".into(), content("garbage"));
    disk.carry_out(&take_over("1"), None);
    assert_eq!(disk.files[Path::new("/bin/calico")], content("percale 1"));
    assert_eq!(disk.files[Path::new("/bin/percale")], content("percale 1"));
    let back = restored(&disk.records);
    disk.carry_out(&back, None);
    assert_eq!(disk.files[Path::new("/bin/calico")], content("newer calico"));
    assert!(!disk.files.contains_key(Path::new("/bin/percale")), "our own names were never theirs");
}

#[test]
fn roll_back_goes_back_and_stays() {
    let first = after(&Disk::default(), &|_| wish("1"));
    let second = after(&first, &|_| wish("2"));
    let back = after(&second, &|records| rolled_back(records).unwrap());
    let plugin = Path::new("/bin/percale");
    assert_eq!(back.files[plugin], content("percale 1"));
    assert_eq!(
        back.files[Path::new("/net.d/percale-kubeconfig")],
        content("token 2"),
        "an old token is of no use"
    );
    let again = after(&back, &|records| rolled_back(records).unwrap());
    assert!(again.same_files(&back), "asked twice, it does not go forth");
    let forth = after(&again, &|_| wish("2"));
    assert_eq!(forth.files[plugin], content("percale 2"));
    let back = after(&forth, &|records| rolled_back(records).unwrap());
    assert_eq!(back.files[plugin], content("percale 1"));
    assert_eq!(rolled_back(&Records::default()), None);
}

#[test]
fn the_conflist_is_last_to_come_and_first_to_go() {
    let fresh = Disk::with_others();
    let last = |plan: &Plan| match plan.steps.last() {
        Some(Step::Place { kind, .. }) => Some(*kind),
        _ => None,
    };
    assert_eq!(last(&fresh.plan(&wish("1"))), Some(Kind::Conflist));
    let installed = after(&fresh, &|_| wish("1"));
    let steps = installed.plan(&restored(&installed.records)).steps;
    let first = steps.iter().find(|step| !matches!(step, Step::Save { .. } | Step::Keep { .. }));
    assert!(matches!(first, Some(Step::Remove { kind: Kind::Conflist, .. })), "{steps:?}");
}

#[test]
fn nothing_to_do_is_nothing_done() {
    let installed = after(&Disk::with_others(), &|_| wish("1"));
    let plan = installed.plan(&wish("1"));
    assert!(!plan.changes(), "{:?}", plan.steps);
    assert_eq!(completed(&installed.records, plan.target), installed.records);
    let mut renewed = wish("1");
    renewed.files[3] = want("/net.d/percale-kubeconfig", "token 9", Kind::Kubeconfig);
    let renewed = after(&installed, &|_| renewed.clone());
    assert_eq!(renewed.records.previous, installed.records.previous, "a token makes no other set");
}

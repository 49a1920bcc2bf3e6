//! Random work, restarts and power cuts, against a log that is just a list.

use proptest::prelude::*;
use tenure_disk::Loss;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Do(Ask),
    /// Several things asked for at once, so that they are written as one batch.
    Together(Vec<Ask>),
    Reopen,
    /// After so many more changes the disk takes no more; then the power goes, or only the process does.
    Die {
        after: u64,
        loss: Option<Loss>,
    },
    /// One sync fails, and only the process goes.
    FailSync,
}

#[derive(Clone, Debug)]
enum Ask {
    Append {
        count: u64,
        size: usize,
        term: u64,
    },
    Vote(u64),
    /// Keep all but so many.
    Truncate(u64),
    /// All but so many, or so many more than there are.
    Purge(i64),
    Commit,
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        6 => (1..5u64, prop_oneof![0..40usize, 300..600usize, 0..3000usize], 0..2u64)
            .prop_map(|(count, size, term)| Ask::Append { count, size, term }),
        2 => (1..9u64).prop_map(Ask::Vote),
        1 => (0..6u64).prop_map(Ask::Truncate),
        2 => (-2..6i64).prop_map(Ask::Purge),
        1 => Just(Ask::Commit),
    ]
}

fn loss() -> impl Strategy<Value = Option<Loss>> {
    prop_oneof![
        Just(None),
        Just(Some(Loss::Everything)),
        Just(Some(Loss::Nothing)),
        (0..6000u64).prop_map(|bytes| Some(Loss::After(bytes))),
        any::<u64>().prop_map(|seed| Some(Loss::Pages(seed))),
        any::<u64>().prop_map(|seed| Some(Loss::Sectors(seed))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => ask().prop_map(Step::Do),
        4 => prop::collection::vec(ask(), 1..6).prop_map(Step::Together),
        1 => Just(Step::Reopen),
        3 => (0..25u64, loss()).prop_map(|(after, loss)| Step::Die { after, loss }),
        1 => Just(Step::FailSync),
    ]
}

/// What the log should hold, and what it may hold if what is under way is lost.
#[derive(Clone)]
struct Model {
    now: Content,
    term: u64,
    /// What may be found after a crash: the last state acknowledged, and those after it, in order.
    possible: Vec<Content>,
    committed: Vec<Option<LogId>>,
}

impl Model {
    fn new() -> Model {
        let now = Content { vote: None, purged: None, last: None, entries: Vec::new() };
        Model { possible: vec![now.clone()], now, term: 1, committed: vec![None] }
    }

    /// Changes the model as the log should change, and asks the log.
    fn ask(&mut self, wal: &Wal, ask: Ask) {
        match ask {
            Ask::Append { count, size, term } => {
                self.term += term;
                let next = self.now.last.map_or(1, |last| last.index + 1);
                let entries: Vec<_> =
                    (next..next + count).map(|index| entry(id(self.term, index), size)).collect();
                wal.append(entries.clone(), |_| {});
                // A long append is more than one batch.
                for (id, payload) in entries {
                    self.now.last = Some(id);
                    self.now.entries.push((id, payload));
                    self.possible.push(self.now.clone());
                }
            }
            Ask::Vote(term) => {
                wal.save_vote(vote(term), |_| {});
                self.now.vote = Some(vote(term));
            }
            Ask::Truncate(back) => {
                let keep = self.now.entries.len().saturating_sub(back as usize);
                self.now.entries.truncate(keep);
                self.now.last = self.now.entries.last().map(|(id, _)| *id).or(self.now.purged);
                wal.truncate_after(self.now.last.map(|last| last.index));
            }
            Ask::Purge(kept) => {
                let Some(last) = self.now.last else { return };
                let upto = last.index.saturating_add_signed(-kept);
                let known = self.now.entries.iter().find(|(id, _)| id.index == upto);
                let upto = known.map_or(id(self.term, upto), |(id, _)| *id);
                if self.now.purged.is_some_and(|purged| purged.index >= upto.index) {
                    return;
                }
                wal.purge(upto);
                self.now.purged = Some(upto);
                self.now.entries.retain(|(id, _)| id.index > upto.index);
                self.now.last = self.now.entries.last().map(|(id, _)| *id).or(Some(upto));
            }
            Ask::Commit => {
                self.committed.push(self.now.last);
                wal.save_committed(self.now.last);
            }
        }
        self.possible.push(self.now.clone());
    }

    /// What was asked for so far is acknowledged.
    fn acknowledged(&mut self) {
        self.possible = vec![self.now.clone()];
    }

    fn check(&self, wal: &Wal) {
        assert_eq!(content(wal), self.now);
        for (id, _) in &self.now.entries {
            assert_eq!(wal.id(id.index), Some(*id));
        }
    }

    /// Takes over what was found after a crash, if it is possible.
    fn recovered(&mut self, wal: &Wal) {
        let found = content(wal);
        assert!(self.possible.contains(&found), "found {found:?}\npossible {:?}", self.possible);
        assert!(self.committed.contains(&wal.committed()));
        self.now = found;
        self.acknowledged();
    }
}

fn run(steps: Vec<Step>, options: WalOptions) {
    let disk = FakeDisk::default();
    let reopen = || Wal::open(Arc::new(disk.clone()), Path::new(DIR), options.clone());
    let mut wal = reopen().unwrap();
    let mut model = Model::new();
    let mut end = None;
    for step in steps {
        match step {
            Step::Do(ask) => model.ask(&wal, ask),
            Step::Together(asks) => {
                // Asked for from within a callback, all of it waits in the queue until the callback returns.
                let shared = Arc::new(Mutex::new(model));
                let (inner, asked) = (wal.clone(), shared.clone());
                wal.append(Vec::new(), move |_| {
                    for ask in asks {
                        asked.lock().ask(&inner, ask);
                    }
                });
                model = shared.lock().clone();
            }
            Step::Reopen => {
                drop(wal);
                // With a disk about to fail this may fail too: nothing must get lost by trying.
                wal = reopen().unwrap_or_else(|_| {
                    crash(&disk, end.take().flatten());
                    reopen().unwrap()
                });
                model.recovered(&wal);
            }
            Step::Die { after, loss } => {
                disk.die_after(after);
                end = Some(loss);
            }
            Step::FailSync => disk.fail_sync_after(0),
        }
        if wal.stopped().is_none() {
            model.check(&wal);
            model.acknowledged();
        } else {
            drop(wal);
            crash(&disk, end.take().flatten());
            wal = reopen().unwrap();
            model.recovered(&wal);
        }
    }
}

fn crash(disk: &FakeDisk, loss: Option<Loss>) {
    match loss {
        Some(loss) => disk.cut_power(loss),
        None => disk.heal(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    /// Whatever happens, the log is what was acknowledged, or that and a first part of what was under way.
    #[test]
    fn the_log_is_a_list_that_survives(steps in prop::collection::vec(step(), 1..40), split: bool, large: bool) {
        let batch_bytes_max = if split { 1500 } else { 4 << 20 };
        let segment_bytes = if large { 32 << 10 } else { 4 << 10 };
        run(steps, WalOptions { batch_bytes_max, segment_bytes, ..small() });
    }
}

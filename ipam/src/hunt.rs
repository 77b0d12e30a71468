//! Finding a free address for one ask, in the order of decision 21: a cool address of an own
//! block, a new block within the limits, the own address that has cooled longest, a borrowed one.

mod borrow;
mod exact;

use crate::block;
use crate::draft::{Draft, Step};
use crate::env::Env;
use crate::error::IpamError;
use crate::request::{Assign, Context, Note};
use crate::search::{Gaps, fnv1};
use crate::source::{Source, nets};
use ipnet::IpNet;
use model::keys::AffinityKind;
use model::store::Stop;
use model::{Affinity, AffinityState, Attribute, Block, Family, Scope, keys, time};
use std::net::IpAddr;
use std::time::Duration;

/// How many blocks are asked for at first; each further round asks for twice as many.
const FIRST_WINDOW: usize = 4;

pub(crate) struct Hunt<'h, 'v, 'e> {
    pub draft: &'h mut Draft<'v>,
    pub env: &'h Env<'e>,
    pub request: &'h Assign,
    pub family: Family,
    pub sources: &'h [Source],
    pub notes: &'h mut Vec<Note>,
}

/// A block that this host may take addresses from.
struct Open {
    block: Block,
    /// It must be created.
    new: bool,
}

/// Which addresses to look at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pick {
    /// Those that do not cool.
    Cool,
    /// The one that has cooled longest.
    Oldest,
}

impl Hunt<'_, '_, '_> {
    /// Takes an address, whichever is best.
    pub fn any(&mut self) -> Step<IpAddr> {
        let own = self.own_blocks()?;
        let limited = self.limit().is_some_and(|limit| own.len() >= limit as usize);
        let may_claim = !limited && self.env.config.auto_allocate_blocks;
        if let Some(ip) = self.try_own(&own)? {
            return Ok(ip);
        }
        if may_claim && let Some(ip) = self.try_new(Pick::Cool)? {
            return Ok(ip);
        }
        if self.delay().is_some()
            && let Some(ip) = self.try_cooling(&own, may_claim)?
        {
            self.notes.push(Note::Cooling { ip });
            return Ok(ip);
        }
        let foreign = self.foreign_blocks(&own)?;
        // What a handle without an object holds must be in own blocks.
        if !self.env.config.strict_affinity
            && self.draft.has_object(&self.request.handle)
            && let Some(ip) = self.borrow(&foreign)?
        {
            return Ok(ip);
        }
        Err(Stop::Fail(self.refusal(own.len(), foreign.len(), limited)))
    }

    fn refusal(&self, own: usize, foreign: usize, limited: bool) -> IpamError {
        let (family, host) = (self.family, self.env.cx.host.to_owned());
        match self.limit() {
            Some(limit) if limited => IpamError::BlockLimit { family, host, blocks: own, limit },
            _ if !self.env.config.auto_allocate_blocks => {
                IpamError::NoAutoAllocate { family, host, blocks: own }
            }
            _ => IpamError::Exhausted {
                family,
                host,
                pools: nets(self.sources),
                own_blocks: own,
                foreign_blocks: foreign,
                strict: self.env.config.strict_affinity,
            },
        }
    }

    fn cx(&self) -> &Context<'_> {
        self.env.cx
    }

    /// Whether release times matter to this request.
    fn delay(&self) -> Option<Duration> {
        Some(self.request.reuse_delay).filter(|delay| !delay.is_zero())
    }

    /// The smaller of the stored limit and the request's; zero is none. (Newer Calico takes a
    /// stored zero as 20; here one host may need them all, and other hosts can still borrow.)
    fn limit(&self) -> Option<u32> {
        let stored = Some(self.env.config.max_blocks_per_host);
        let limits = [stored, self.request.max_blocks].into_iter().flatten();
        limits.filter(|limit| *limit > 0).min()
    }

    fn source_of(&self, cidr: &IpNet) -> Option<&Source> {
        self.sources.iter().find(|source| source.holds(cidr))
    }

    fn source_index(&self, cidr: &IpNet) -> Option<usize> {
        self.sources.iter().position(|source| source.holds(cidr))
    }

    /// This host's blocks within the sources, in the order of the sources, the newest first.
    fn own_blocks(&mut self) -> Step<Vec<IpNet>> {
        let claimed = self.draft.claimed(self.env.cx.host, self.family)?;
        let mut own: Vec<(usize, IpNet)> =
            claimed.into_iter().filter_map(|cidr| Some((self.source_index(&cidr)?, cidr))).collect();
        own.sort_by_key(|(index, _)| *index);
        Ok(own.into_iter().map(|(_, cidr)| cidr).collect())
    }

    fn try_own(&mut self, own: &[IpNet]) -> Step<Option<IpAddr>> {
        for window in windows(own) {
            self.draft.require_blocks(window, self.delay().is_some())?;
            for cidr in window {
                if self.draft.surely_full(cidr)? {
                    continue;
                }
                let Some(open) = self.open_own(cidr)? else { continue };
                if let Some((ordinal, _)) = self.pick(&open.block, Pick::Cool)? {
                    return self.take_own(open, ordinal).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// A block that our affinity names, if it is really ours. An affinity for another host's
    /// block is stale and goes; one without a block is as good as new.
    fn open_own(&mut self, cidr: &IpNet) -> Step<Option<Open>> {
        let host = self.env.cx.host;
        let Some(affinity) = self.tolerate(|draft| draft.affinity(host, cidr))?.flatten() else {
            return Ok(None);
        };
        if affinity.deleted {
            return Ok(None);
        }
        match self.tolerate(|draft| draft.block(cidr))? {
            None => Ok(None),
            Some(None) => Ok(Some(Open { block: self.new_block(*cidr), new: true })),
            Some(Some(block)) if !block.is_of_host(host) => {
                if !block.deleted {
                    self.draft.set_affinity(host, cidr, None);
                }
                Ok(None)
            }
            Some(Some(block)) => {
                let usable = self.writable(&block);
                Ok(usable.then(|| Open { block: Block::clone(&block), new: false }))
            }
        }
    }

    /// Passes over what cannot be read, with a note.
    fn tolerate<T>(&mut self, read: impl FnOnce(&mut Draft) -> Step<T>) -> Step<Option<T>> {
        match read(self.draft) {
            Ok(found) => Ok(Some(found)),
            Err(Stop::Fail(IpamError::Damaged(e))) => {
                self.notes.push(Note::Unreadable { key: e.subject, problem: e.problem.to_string() });
                Ok(None)
            }
            Err(stop) => Err(stop),
        }
    }

    /// Whether a block may be written: not on its way out, no unknown state (decision 22).
    fn writable(&mut self, block: &Block) -> bool {
        if let Some(field) = block.unknown_state() {
            self.notes.push(Note::ReadOnly { block: block.cidr, field: field.to_owned() });
            return false;
        }
        !block.deleted
    }

    fn new_block(&self, cidr: IpNet) -> Block {
        let now = self.env.cx.now.wall_ns;
        let mut block =
            Block::new(cidr, Some(format!("{}:{}", AffinityKind::Host.as_str(), self.env.cx.host)));
        block.sequence_number = now.max(1);
        block.affinity_claim_time = Some(time::rfc3339(now));
        block
    }

    /// Whether an address may be given unasked.
    fn usable(&self, source: &Source, ip: IpAddr) -> bool {
        source.gives(ip) && !self.request.excluded.contains(&ip) && !self.env.is_reserved(ip)
    }

    /// A free ordinal of a block, and how long it has cooled.
    fn pick(&mut self, block: &Block, pick: Pick) -> Step<Option<(u32, Duration)>> {
        let Some(source) = self.source_of(&block.cidr).cloned() else { return Ok(None) };
        let Some(delay) = self.delay() else {
            let found = block::next_free(block, |_, ip| self.usable(&source, ip));
            return Ok(found.map(|ordinal| (ordinal, Duration::MAX)));
        };
        let key = keys::cooling(self.draft.scope, &block.cidr);
        let cooling = self.draft.cooling.get(self.draft.view, &key)?.unwrap_or_default();
        let age = |ordinal| cooling.age(ordinal, self.cx()).unwrap_or(Duration::MAX);
        let mut usable = block.unallocated.iter().copied().filter(|o| self.usable(&source, block.ip(*o)));
        let found = match pick {
            Pick::Cool => usable.find(|ordinal| age(*ordinal) >= delay),
            Pick::Oldest => usable.max_by_key(|ordinal| age(*ordinal)),
        };
        Ok(found.map(|ordinal| (ordinal, age(ordinal))))
    }

    /// Assigns an ordinal of a block of ours and makes sure that the claim to it stands.
    fn take_own(&mut self, open: Open, ordinal: u32) -> Step<IpAddr> {
        let (cidr, host) = (open.block.cidr, self.env.cx.host);
        let affinity = self.draft.affinity(host, &cidr)?;
        let confirmed =
            affinity.as_deref().is_some_and(|a| a.state() == AffinityState::Confirmed && !a.deleted);
        // With a new block the claim is written in any case, so that it cannot be given up meanwhile.
        if !confirmed || open.new {
            let mut affinity =
                affinity.map_or_else(|| Affinity::new(AffinityState::Confirmed), |a| Affinity::clone(&a));
            affinity.set_state(AffinityState::Confirmed);
            affinity.deleted = false;
            self.draft.set_affinity(host, &cidr, Some(affinity));
        }
        self.take(open, ordinal)
    }

    fn take(&mut self, open: Open, ordinal: u32) -> Step<IpAddr> {
        let Open { mut block, new } = open;
        let attribute = Attribute::new(Some(&self.request.handle), self.request.attrs.clone());
        block::assign(&mut block, ordinal, &attribute).expect("only free ordinals are picked");
        let ip = block.ip(ordinal);
        if new {
            self.draft.create_block(block)
        } else {
            self.draft.set_block(block)
        }
        Ok(ip)
    }

    /// Claims a block that does not exist yet.
    fn try_new(&mut self, pick: Pick) -> Step<Option<IpAddr>> {
        let existing = self.draft.block_cidrs(self.family)?;
        for source in self.sources {
            let gaps = Gaps::new(source, &existing, &self.env.reserved);
            let mut blocks = gaps.from(self.start(source));
            // The first one nearly always does; others follow where addresses of it are withheld.
            for length in std::iter::once(1).chain((3..).map(|power| 1 << power.min(10))) {
                let window: Vec<IpNet> = blocks.by_ref().take(length).collect();
                if window.is_empty() {
                    break;
                }
                if let Some(ip) = self.claim_one(&window, pick)? {
                    return Ok(Some(ip));
                }
            }
        }
        Ok(None)
    }

    fn claim_one(&mut self, window: &[IpNet], pick: Pick) -> Step<Option<IpAddr>> {
        if self.delay().is_some() {
            self.draft.require_cooling(window)?;
        }
        for cidr in window {
            let open = Open { block: self.new_block(*cidr), new: true };
            if let Some((ordinal, _)) = self.pick(&open.block, pick)? {
                return self.take_own(open, ordinal).map(Some);
            }
        }
        Ok(None)
    }

    /// Number of the block at which this host starts to look (reference 3.6): spread by name over
    /// the cluster, by chance where each block is one address, from the first within a network.
    fn start(&self, source: &Source) -> u128 {
        match self.env.cx.scope {
            Scope::Network(_) => 0,
            Scope::Cluster if source.block_prefix == self.family.bits() => u128::from(self.env.cx.chance),
            Scope::Cluster => u128::from(fnv1(self.env.cx.host)),
        }
    }

    /// The address that was released longest ago: of an own block, else of a block that has gone
    /// since and can be claimed again.
    fn try_cooling(&mut self, own: &[IpNet], may_claim: bool) -> Step<Option<IpAddr>> {
        let mut oldest: Option<(Duration, Open, u32)> = None;
        for cidr in own {
            let Some(open) = self.open_own(cidr)? else { continue };
            if let Some((ordinal, age)) = self.pick(&open.block, Pick::Oldest)?
                && oldest.as_ref().is_none_or(|(best, ..)| age > *best)
            {
                oldest = Some((age, open, ordinal));
            }
        }
        match oldest {
            Some((_, open, ordinal)) => self.take_own(open, ordinal).map(Some),
            None if may_claim => self.try_new(Pick::Oldest),
            None => Ok(None),
        }
    }
}

/// Slices that double in length, so that a long list costs few rounds and a short search few reads.
fn windows<T>(items: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    let mut length = FIRST_WINDOW;
    std::iter::from_fn(move || {
        let (window, tail) = rest.split_at(length.min(rest.len()));
        (rest, length) = (tail, length * 2);
        (!window.is_empty()).then_some(window)
    })
}

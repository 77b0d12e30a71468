//! Taking one certain address.

use super::borrow::lends;
use super::{Hunt, Open};
use crate::draft::Step;
use crate::error::IpamError;
use crate::request::Note;
use crate::source::{Source, nets};
use ipnet::IpNet;
use model::Block;
use model::store::Stop;
use std::net::IpAddr;

impl Hunt<'_, '_, '_> {
    /// Takes exactly this address (reference 3.8, AssignIP). The outer error is a stop, the inner
    /// one says why this address cannot be had.
    pub fn exactly(&mut self, ip: IpAddr) -> Step<Result<IpAddr, IpamError>> {
        let source = match self.granting_source(ip) {
            Ok(source) => source.clone(),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let cidr = source.block_of(ip);
        self.draft.require_blocks([&cidr], false)?;
        match self.draft.block(&cidr)? {
            Some(block) => self.exactly_from(&block, ip),
            None => self.exactly_from_new(cidr, ip),
        }
    }

    fn granting_source(&self, ip: IpAddr) -> Result<&Source, IpamError> {
        let holding = self.sources.iter().find(|source| source.cidr.contains(&ip));
        let source = holding.ok_or_else(|| IpamError::NotInPool { ip, pools: nets(self.sources) })?;
        if self.request.excluded.contains(&ip) {
            return Err(IpamError::Excluded { ip });
        }
        if source.gives(ip) { Ok(source) } else { Err(IpamError::Withheld { ip, range: source.cidr }) }
    }

    fn exactly_from(&mut self, block: &Block, ip: IpAddr) -> Step<Result<IpAddr, IpamError>> {
        let ordinal = block.ordinal(ip).expect("the block was found by this address");
        let cidr = block.cidr;
        if let Some(entry) = block.attribute(ordinal) {
            return Ok(Err(IpamError::AlreadyAssigned { ip, handle: entry.handle().map(str::to_owned) }));
        }
        if let Some(field) = block.unknown_state() {
            return Ok(Err(IpamError::ReadOnlyBlock { block: cidr, field: field.to_owned() }));
        }
        let ours = block.is_of_host(self.env.cx.host);
        if block.deleted || !ours && (self.env.config.strict_affinity || !lends(block)) {
            let owner = block.affinity.clone().unwrap_or_else(|| "nobody".to_owned());
            return Ok(Err(IpamError::ForeignBlock { ip, block: cidr, owner }));
        }
        let open = Open { block: block.clone(), new: false };
        if ours {
            return self.take_own(open, ordinal).map(Ok);
        }
        self.notes.push(Note::Borrowed { ip, block: cidr });
        self.take(open, ordinal).map(Ok)
    }

    /// The address lies in no block of its pool's size: the block is claimed, whatever the limits,
    /// unless a block of another size is in the way.
    fn exactly_from_new(&mut self, cidr: IpNet, ip: IpAddr) -> Step<Result<IpAddr, IpamError>> {
        let existing = self.draft.block_cidrs(self.family)?;
        if let Some(other) = existing.iter().find(|other| model::ip::overlap(other, &cidr)) {
            if !other.contains(&ip) {
                return Ok(Err(IpamError::PoolOverBlock { cidr, block: *other }));
            }
            self.draft.require_blocks([other], false)?;
            return match self.draft.block(other)? {
                Some(block) => self.exactly_from(&block, ip),
                None => Ok(Err(IpamError::PoolOverBlock { cidr, block: *other })),
            };
        }
        self.draft.claimed(self.env.cx.host, self.family)?;
        let open = Open { block: self.new_block(cidr), new: true };
        let ordinal = open.block.ordinal(ip).expect("the block was cut around this address");
        self.take_own(open, ordinal).map(Ok)
    }

    /// Takes the address that a sticky name had, unless someone or something is in the way.
    pub fn again(&mut self, ip: IpAddr) -> Step<Option<IpAddr>> {
        let Some(source) = self.sources.iter().find(|source| source.cidr.contains(&ip)) else {
            return Ok(None);
        };
        let cidr = source.block_of(ip);
        if !self.usable(source, ip) || !self.may_claim(&cidr)? {
            return Ok(None);
        }
        match self.exactly(ip) {
            Ok(taken) => Ok(taken.ok()),
            Err(Stop::Fail(IpamError::Damaged(_))) => Ok(None),
            Err(stop) => Err(stop),
        }
    }

    /// Whether a block exists or could be claimed within the limits.
    fn may_claim(&mut self, cidr: &IpNet) -> Step<bool> {
        self.draft.require_blocks([cidr], false)?;
        if self.tolerate(|draft| draft.block(cidr))?.flatten().is_some() {
            return Ok(true);
        }
        let own = self.own_blocks()?.len();
        let within = self.limit().is_none_or(|limit| own < limit as usize);
        Ok(within && self.env.config.auto_allocate_blocks)
    }
}

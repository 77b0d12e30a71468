//! Pools that the network configuration lists: created where they do not exist (decision 30).

use crate::draft::{Draft, Step};
use crate::env::Env;
use crate::error::IpamError;
use crate::request::{Note, PoolSpec};
use crate::source::all_pools;
use ipnet::IpNet;
use model::block::{block_sizes, default_block_size};
use model::ip::{self, Family};
use model::resource::IpPoolSpec;
use model::store::Stop;
use model::{IpPool, keys, time};

pub(crate) fn create_pools(
    draft: &mut Draft,
    env: &Env,
    wanted: &[PoolSpec],
    notes: &mut Vec<Note>,
) -> Step<()> {
    for spec in wanted {
        create(draft, env, spec, notes)?;
    }
    Ok(())
}

fn create(draft: &mut Draft, env: &Env, spec: &PoolSpec, notes: &mut Vec<Note>) -> Step<()> {
    let fail = |error| Err(Stop::Fail(error));
    let cidr = spec.cidr.trunc();
    let block_size = spec.block_size.unwrap_or_else(|| default_block_size(Family::of_net(&cidr)));
    if !block_sizes(Family::of_net(&cidr)).contains(&block_size) || block_size < cidr.prefix_len() {
        return fail(IpamError::BadBlockSize { cidr, block_size });
    }
    for pool in all_pools(draft, notes)? {
        let Some(net) = pool.spec.net().filter(|net| ip::overlap(net, &cidr)) else { continue };
        if net != cidr {
            return fail(IpamError::PoolOverlap { cidr, name: pool.name().to_owned(), other: net });
        }
        return same(&pool, cidr, block_size, spec, notes);
    }
    no_other_blocks(draft, cidr, block_size)?;
    let pool = new_pool(env, cidr, block_size, spec);
    let key = pool.key();
    draft.pools.get(draft.view, &key)?;
    draft.pools.set(&key, Some(pool));
    Ok(())
}

/// A pool of this network exists: its block size must be ours, the rest stays as it is.
fn same(pool: &IpPool, cidr: IpNet, wanted: u8, spec: &PoolSpec, notes: &mut Vec<Note>) -> Step<()> {
    let existing = pool.spec.block_prefix().unwrap_or_default();
    if existing != wanted {
        return Err(Stop::Fail(IpamError::PoolBlockSize { cidr, existing, wanted }));
    }
    if pool.spec.nat_outgoing != spec.nat_outgoing {
        notes.push(Note::PoolDiffers { pool: pool.name().to_owned(), field: "natOutgoing" });
    }
    Ok(())
}

/// Blocks that outlived an earlier pool must have the size of the new one's.
fn no_other_blocks(draft: &mut Draft, cidr: IpNet, block_size: u8) -> Step<()> {
    let blocks = draft.block_cidrs(Family::of_net(&cidr))?;
    match blocks.into_iter().find(|b| ip::overlap(b, &cidr) && b.prefix_len() != block_size) {
        Some(block) => Err(Stop::Fail(IpamError::PoolOverBlock { cidr, block })),
        None => Ok(()),
    }
}

fn new_pool(env: &Env, cidr: IpNet, block_size: u8, spec: &PoolSpec) -> IpPool {
    let pool = IpPoolSpec {
        cidr: cidr.to_string(),
        vxlan_mode: "Never".to_owned(),
        ipip_mode: "Never".to_owned(),
        nat_outgoing: spec.nat_outgoing,
        block_size,
        node_selector: "all()".to_owned(),
        ..IpPoolSpec::default()
    };
    let mut pool = IpPool::new(&keys::cidr_name(&cidr), pool);
    pool.metadata.uid = Some(uid(env.cx.chance, ip::to_u128(cidr.network())));
    pool.metadata.creation_timestamp = Some(time::rfc3339(env.cx.now.wall_ns));
    pool
}

/// A random UUID (RFC 9562, version 4) out of 64 random bits and what it is for.
fn uid(chance: u64, salt: u128) -> String {
    let bits = u128::from(chance).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) ^ salt;
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

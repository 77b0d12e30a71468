//! The pools of a first start, from the environment (reference 5.4). Only where it asks for them
//! (decision 29): `CALICO_IPV4POOL_CIDR`, `CALICO_IPV6POOL_CIDR`.

use ipnet::IpNet;
use model::block::{block_sizes, default_block_size};
use model::ip::{self, Family};
use model::resource::IpPoolSpec;
use model::selector::Selector;
use model::{IpPool, keys};

/// A variable whose value cannot be used; nothing is created then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value:?}: {fault}")]
pub struct BadPool {
    pub name: String,
    pub value: String,
    pub fault: Fault,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("no network of this family in CIDR notation")]
    Cidr,
    #[error("NO_DEFAULT_POOLS is set, and forbids it")]
    Forbidden,
    #[error("no block size of this family, or the pool is smaller than one block")]
    BlockSize,
    #[error("use Never, Always or CrossSubnet")]
    Mode,
    #[error("IPIP and VXLAN cannot both be on")]
    BothModes,
    #[error("use true or false")]
    Boolean,
    #[error("no selector")]
    Selector,
}

/// The pools to create, of the families that have none yet.
///
/// # Errors
/// The first variable that cannot be used.
pub fn defaults(env: &dyn Fn(&str) -> Option<String>, existing: &[IpPool]) -> Result<Vec<IpPool>, BadPool> {
    let mut pools = Vec::new();
    for family in Family::BOTH {
        let has = existing.iter().any(|p| p.spec.net().is_some_and(|net| Family::of_net(&net) == family));
        if let Some(pool) = default(env, family)?.filter(|_| !has) {
            pools.push(pool);
        }
    }
    Ok(pools)
}

fn default(env: &dyn Fn(&str) -> Option<String>, family: Family) -> Result<Option<IpPool>, BadPool> {
    let variables = Variables { env, family };
    let Some((name, cidr)) = variables.get("CIDR") else { return Ok(None) };
    let bad = |fault| BadPool { name: name.clone(), value: cidr.clone(), fault };
    if env("NO_DEFAULT_POOLS").is_some_and(|text| text == "true") {
        return Err(bad(Fault::Forbidden));
    }
    let net =
        ip::parse_net(&cidr).ok().filter(|net| Family::of_net(net) == family).ok_or(bad(Fault::Cidr))?;
    let (ipip, vxlan) = (variables.mode("IPIP")?, variables.mode("VXLAN")?);
    if ipip != "Never" && (vxlan != "Never" || family == Family::V6) {
        return Err(bad(if vxlan != "Never" { Fault::BothModes } else { Fault::Mode }));
    }
    let spec = IpPoolSpec {
        cidr: net.to_string(),
        block_size: variables.block_size(&net)?,
        ipip_mode: ipip.to_owned(),
        vxlan_mode: vxlan.to_owned(),
        nat_outgoing: variables.boolean("NAT_OUTGOING", family == Family::V4)?,
        node_selector: variables.selector()?,
        ..IpPoolSpec::default()
    };
    Ok(Some(IpPool::new(&format!("default-ipv{}-ippool", family.version()), spec)))
}

/// `CALICO_IPV4POOL_*` or `CALICO_IPV6POOL_*`.
struct Variables<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    family: Family,
}

impl Variables<'_> {
    /// The full name and the value, if it has one.
    fn get(&self, tail: &str) -> Option<(String, String)> {
        let name = format!("CALICO_IPV{}POOL_{tail}", self.family.version());
        let value = (self.env)(&name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())?;
        Some((name, value))
    }

    fn mode(&self, tail: &str) -> Result<&'static str, BadPool> {
        let Some((name, value)) = self.get(tail) else { return Ok("Never") };
        match value.to_ascii_lowercase().as_str() {
            "off" | "never" => Ok("Never"),
            "always" => Ok("Always"),
            "cross-subnet" | "crosssubnet" => Ok("CrossSubnet"),
            _ => Err(BadPool { name, value, fault: Fault::Mode }),
        }
    }

    fn block_size(&self, net: &IpNet) -> Result<u8, BadPool> {
        let (name, value) = match self.get("BLOCK_SIZE") {
            Some(set) => set,
            None if net.prefix_len() <= default_block_size(self.family) => {
                return Ok(default_block_size(self.family));
            }
            None => self.get("CIDR").unwrap_or_default(),
        };
        let size = value.parse().ok().filter(|size| block_sizes(self.family).contains(size));
        size.filter(|size| *size >= net.prefix_len()).ok_or(BadPool { name, value, fault: Fault::BlockSize })
    }

    fn boolean(&self, tail: &str, default: bool) -> Result<bool, BadPool> {
        let Some((name, value)) = self.get(tail) else { return Ok(default) };
        match value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Ok(true),
            "false" | "no" | "0" => Ok(false),
            _ => Err(BadPool { name, value, fault: Fault::Boolean }),
        }
    }

    fn selector(&self) -> Result<String, BadPool> {
        let Some((name, value)) = self.get("NODE_SELECTOR") else { return Ok("all()".to_owned()) };
        match Selector::parse(&value) {
            Ok(_) => Ok(value),
            Err(_) => Err(BadPool { name, value, fault: Fault::Selector }),
        }
    }
}

/// The key that a pool is stored under.
pub fn key(pool: &IpPool) -> String {
    keys::pool(pool.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Result<Vec<IpPool>, BadPool> {
        let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        defaults(&env, &[])
    }

    #[test]
    fn nothing_is_made_that_was_not_asked_for() {
        assert_eq!(of(&[]).unwrap(), []);
    }

    #[test]
    fn the_environment_makes_calicos_pools() {
        let pools = of(&[
            ("CALICO_IPV4POOL_CIDR", "10.50.0.0/16"),
            ("CALICO_IPV4POOL_VXLAN", "CrossSubnet"),
            ("CALICO_IPV4POOL_BLOCK_SIZE", "27"),
            ("CALICO_IPV6POOL_CIDR", "fd50::/64"),
        ]);
        let pools = pools.unwrap();
        assert_eq!((pools[0].name(), pools[0].spec.cidr.as_str()), ("default-ipv4-ippool", "10.50.0.0/16"));
        assert_eq!((pools[0].spec.vxlan_mode.as_str(), pools[0].spec.block_size), ("CrossSubnet", 27));
        assert!(pools[0].spec.nat_outgoing && !pools[1].spec.nat_outgoing);
        assert_eq!((pools[1].name(), pools[1].spec.block_size), ("default-ipv6-ippool", 122));
    }

    #[test]
    fn a_family_that_has_a_pool_gets_none() {
        let vars = [("CALICO_IPV4POOL_CIDR", "10.50.0.0/16"), ("CALICO_IPV6POOL_CIDR", "fd50::/64")];
        let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let there = IpPool::new("mine", IpPoolSpec { cidr: "10.0.0.0/8".into(), ..IpPoolSpec::default() });
        let made = defaults(&env, &[there]).unwrap();
        assert_eq!(made.iter().map(IpPool::name).collect::<Vec<_>>(), ["default-ipv6-ippool"]);
    }

    /// As Calico's own table of refusals.
    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let v4 = ("CALICO_IPV4POOL_CIDR", "10.50.0.0/16");
        let cases: &[(&[(&str, &str)], Fault)] = &[
            (&[("CALICO_IPV4POOL_CIDR", "10.50.0.0")], Fault::Cidr),
            (&[("CALICO_IPV4POOL_CIDR", "fd50::/64")], Fault::Cidr),
            (&[("CALICO_IPV6POOL_CIDR", "10.50.0.0/16")], Fault::Cidr),
            (&[("CALICO_IPV4POOL_CIDR", "10.50.0.0/27")], Fault::BlockSize),
            (&[v4, ("CALICO_IPV4POOL_BLOCK_SIZE", "19")], Fault::BlockSize),
            (&[v4, ("CALICO_IPV4POOL_BLOCK_SIZE", "33")], Fault::BlockSize),
            (
                &[("CALICO_IPV6POOL_CIDR", "fd50::/64"), ("CALICO_IPV6POOL_BLOCK_SIZE", "115")],
                Fault::BlockSize,
            ),
            (
                &[("CALICO_IPV6POOL_CIDR", "fd50::/64"), ("CALICO_IPV6POOL_BLOCK_SIZE", "129")],
                Fault::BlockSize,
            ),
            (&[v4, ("CALICO_IPV4POOL_IPIP", "sometimes")], Fault::Mode),
            (
                &[v4, ("CALICO_IPV4POOL_IPIP", "Always"), ("CALICO_IPV4POOL_VXLAN", "Always")],
                Fault::BothModes,
            ),
            (&[v4, ("CALICO_IPV4POOL_NAT_OUTGOING", "maybe")], Fault::Boolean),
            (&[v4, ("CALICO_IPV4POOL_NODE_SELECTOR", "a ==")], Fault::Selector),
            (&[v4, ("NO_DEFAULT_POOLS", "true")], Fault::Forbidden),
        ];
        for (vars, fault) in cases {
            assert_eq!(of(vars).unwrap_err().fault, *fault, "{vars:?}");
        }
    }
}

//! From the errors of the parts to the error that the runtime is told: a code that it acts on, and one
//! line that says what to do.

use cni_protocol::{CniError, Code};
use datastore::{DriveError, ErrorKind};
use ipam::IpamError;
use netlink::{FirewallError, NetnsError};

/// A failed store operation.
pub(crate) fn store(error: &datastore::Error) -> CniError {
    let (code, cure) = match error.kind {
        ErrorKind::Timeout | ErrorKind::Unreachable => (Code::TryAgain, "try again"),
        ErrorKind::Missing => (Code::Io, "the store does not exist yet; an ADD creates it"),
        ErrorKind::Full if is_of(error, "etcd ") => (
            Code::TryAgain,
            "etcd has no space left; compact and defragment it, disarm its alarm, and try again",
        ),
        ErrorKind::Full => (Code::Io, "the disk is full; free some room and try again"),
        ErrorKind::Denied if is_of(error, "etcd ") => {
            (Code::Io, "etcd refuses; check the user, password, certificates and permissions given for it")
        }
        // A token expires and is renewed.
        ErrorKind::Denied if is_of(error, "Kubernetes ") => (
            Code::TryAgain,
            "the API server refuses, or the credentials cannot be read; check the kubeconfig, whether its token is \
             still renewed, and the account's rights, then try again",
        ),
        ErrorKind::Denied => (Code::Io, "make the state directory writable for root"),
        ErrorKind::Corrupt => (Code::StoreDamaged, "see `percalectl store dump`, repair with `store load`"),
        _ => (Code::Io, "see the details"),
    };
    CniError::new(code, format!("datastore: {cure}")).caused_by(error)
}

fn is_of(error: &datastore::Error, store: &str) -> bool {
    error.subject.to_string_lossy().starts_with(store)
}

/// A planned change of the store that did not happen.
pub(crate) fn drive(error: DriveError<IpamError>) -> CniError {
    match error {
        DriveError::Plan(error) => ipam(&error),
        DriveError::Store(error) => store(&error),
        DriveError::Contended(cost) => {
            CniError::try_again(format!("others changed the same addresses all the time ({cost}); try again"))
        }
    }
}

/// A refusal of the allocator.
pub(crate) fn ipam(error: &IpamError) -> CniError {
    let code = match error {
        IpamError::Exhausted { .. }
        | IpamError::BlockLimit { .. }
        | IpamError::NoAutoAllocate { .. }
        | IpamError::NoPools { .. } => Code::NoFreeAddress,
        IpamError::NotInPool { .. }
        | IpamError::WrongFamily { .. }
        | IpamError::AlreadyAssigned { .. }
        | IpamError::Withheld { .. }
        | IpamError::Excluded { .. }
        | IpamError::HoldsOther { .. }
        | IpamError::ForeignBlock { .. } => Code::AddressRefused,
        IpamError::Damaged(_) | IpamError::ReadOnlyBlock { .. } => Code::StoreDamaged,
        IpamError::NotReady => Code::TryAgain,
        _ => Code::InvalidConfig,
    };
    CniError::new(code, error.to_string())
}

/// A change of the kernel that was refused.
pub(crate) fn kernel(error: &netlink::Error) -> CniError {
    match error {
        netlink::Error::Netns(error) => netns(error),
        netlink::Error::PodIfaceExists { ifname } => CniError::new(
            Code::ForeignObject,
            format!("CNI_IFNAME: the container already has an interface {ifname} that is not ours"),
        ),
        netlink::Error::HostLinkTaken { name, .. } => {
            CniError::new(Code::ForeignObject, format!("host interface {name} is not ours; remove it"))
                .caused_by(error)
        }
        netlink::Error::TimedOut { .. } => {
            CniError::try_again("the kernel is slow; try again").caused_by(error)
        }
        _ => CniError::new(Code::Kernel, format!("the kernel refused: {error}")).caused_by(error),
    }
}

/// A namespace that cannot be used.
pub(crate) fn netns(error: &NetnsError) -> CniError {
    let code = match error {
        NetnsError::Missing { .. } => Code::UnknownContainer,
        NetnsError::NotANamespace { .. } => Code::InvalidEnvironment,
        _ => Code::Io,
    };
    CniError::new(code, format!("CNI_NETNS: {error}")).caused_by(error)
}

/// A host route that could not be added.
pub(crate) fn route(error: &netlink::RouteError) -> CniError {
    match error {
        netlink::RouteError::Conflict(conflict) => CniError::try_again(format!("{conflict}; try again")),
        netlink::RouteError::Kernel(error) => kernel(error),
    }
}

/// Our nftables table could not be put in place.
pub(crate) fn firewall(error: &FirewallError) -> CniError {
    CniError::new(Code::Kernel, format!("nftables: {error}")).caused_by(error)
}

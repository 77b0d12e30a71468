//! etcd's own administrator: users, and the alarm of a full disk.

use etcd_client::{AlarmAction, AlarmType, Client, Permission, PermissionType};

pub fn admin<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// `root`; `percale` with all of `/calico/` and `/percale/`; `calico`, and `reader` who may only read, with `/calico/`.
pub async fn enable(url: &str) {
    let mut client = Client::connect([url], None).await.unwrap();
    client.user_add("root", "rootpw", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    use PermissionType::{Read, Readwrite};
    for (user, kind, prefixes) in [
        ("percale", Readwrite, &["/calico/", "/percale/"][..]),
        ("calico", Readwrite, &["/calico/"]),
        ("reader", Read, &["/calico/"]),
    ] {
        client.role_add(user).await.unwrap();
        for prefix in prefixes {
            let all = Permission::new(kind, *prefix).with_prefix();
            client.role_grant_permission(user, all).await.unwrap();
        }
        client.user_add(user, "secret", None).await.unwrap();
        client.user_grant_role(user, user).await.unwrap();
    }
    client.auth_enable().await.unwrap();
}

/// What a server does by itself once its quota is used up, and what an administrator does who made room.
pub async fn out_of_space(url: &str, is_out: bool) {
    let mut client = Client::connect([url], None).await.unwrap();
    let action = if is_out { AlarmAction::Activate } else { AlarmAction::Deactivate };
    client.alarm(action, AlarmType::Nospace, None).await.unwrap();
}

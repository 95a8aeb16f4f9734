//! The addresses that a service listens at.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::config::{Role, Serve};
use crate::error::{Code, Error, Result, Violations};

/// The addresses of a service, taken: connections wait until it starts.
pub struct Bound {
    pub(super) grpc: Option<TcpListener>,
    pub(super) http: Option<TcpListener>,
    pub(super) admin: TcpListener,
}

/// The addresses of the listeners that there are to be, and what sets each.
type Wanted = (
    Option<(SocketAddr, &'static str)>,
    Option<(SocketAddr, &'static str)>,
    (SocketAddr, &'static str),
);

fn wanted(settings: &Serve) -> Wanted {
    let has = |role| settings.roles.contains(&role);
    let grpc = has(Role::Grpc).then_some((settings.grpc_addr, "--grpc-addr"));
    let http = has(Role::Gateway).then_some((settings.http_addr, "--http-addr"));
    (grpc, http, (settings.admin_addr, "--admin-addr"))
}

impl Bound {
    /// Takes the addresses of `settings`. Before anything else is done, so that a taken port changes nothing.
    pub async fn of(settings: &Serve) -> Result<Bound> {
        let (grpc, http, admin) = wanted(settings);
        Ok(Bound {
            grpc: bind_if(grpc).await?,
            http: bind_if(http).await?,
            admin: bind(admin.0, admin.1).await?,
        })
    }

    /// Finds listeners that are to have one address.
    pub(super) fn check(settings: &Serve, faults: &mut Violations) {
        let (grpc, http, admin) = wanted(settings);
        let mut others: Vec<(SocketAddr, &str)> = Vec::new();
        for (address, flag) in grpc.into_iter().chain(http).chain([admin]) {
            if let Some((_, other)) = others.iter().find(|(other, _)| is_same(*other, address)) {
                let reported = format!(
                    "{address} is the address of {other} too: each listener needs a port of its own"
                );
                faults.add(flag, "invalid", reported);
            }
            others.push((address, flag));
        }
    }
}

/// Returns whether two listeners cannot have these two addresses. Port 0 is any that is free.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip(), other.ip());
    one.port() == other.port()
        && one.port() != 0
        && (ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified())
}

async fn bind_if(wanted: Option<(SocketAddr, &str)>) -> Result<Option<TcpListener>> {
    match wanted {
        Some((address, flag)) => bind(address, flag).await.map(Some),
        None => Ok(None),
    }
}

async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::AddrInUse => "is taken by another process; choose another port",
            _ => "cannot be listened on",
        };
        Error::new(Code::Unavailable, format!("{flag} {address} {why}.")).caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn two_listeners_need_two_ports() {
        let same = |one: &str, other: &str| is_same(one.parse().unwrap(), other.parse().unwrap());
        assert!(
            same("127.0.0.1:1", "127.0.0.1:1")
                && same("0.0.0.0:1", "127.0.0.1:1")
                && same("[::1]:1", "[::]:1")
        );
        assert!(
            !same("127.0.0.1:1", "127.0.0.1:2")
                && !same("127.0.0.1:1", "127.0.0.2:1")
                && !same("127.0.0.1:0", "127.0.0.1:0")
        );
    }
}

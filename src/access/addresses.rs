//! Networks that callers may come from. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::error::{Code, Error, Violations};

/// The most networks that a list has.
const MAX_NETWORKS: usize = 64;
/// How many bits of an IPv6 address are before the IPv4 address that is mapped into it (RFC 4291, section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// The networks that callers may come from; from anywhere if there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<IpNet>);

impl AllowList {
    /// That of these networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> AllowList {
        AllowList(networks.into_iter().map(canonical).collect())
    }

    /// Returns whether a caller from this address may come. Where there is a list, an address that is not known is not on it.
    pub fn admits(&self, address: Option<IpAddr>) -> bool {
        let contains = |address: IpAddr| {
            let address = address.to_canonical();
            self.0.iter().any(|network| network.contains(&address))
        };
        self.0.is_empty() || address.is_some_and(contains)
    }

    /// Fails with `caller_excluded` where the caller who changes a list to this one could not call again from where it is.
    pub fn check_admits(&self, caller: Option<IpAddr>) -> Result<(), Error> {
        if self.admits(caller) {
            return Ok(());
        }
        let error = |from: String| {
            let message = format!(
                "The new list does not contain the address that this call comes from, {from}: the caller could not call again from there. The request does not say that this is intended."
            );
            Error::new(Code::CallerExcluded, message)
        };
        Err(match caller.map(|address| address.to_canonical()) {
            Some(address) => error(address.to_string()).with("caller_address", address),
            None => error("which is not known".to_owned()),
        })
    }
}

/// The network as addresses are compared with it: one of IPv4 addresses that are mapped to IPv6 is one of IPv4.
pub fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.addr().to_ipv4_mapped();
    let v4 = mapped.zip(v6.prefix_len().checked_sub(MAPPED_BITS));
    v4.and_then(|(address, length): (Ipv4Addr, u8)| Ipv4Net::new(address, length).ok())
        .map_or(network, IpNet::V4)
}

/// Reads a network. Postgres keeps none with bits behind its prefix.
pub fn network(text: &str) -> Result<IpNet, String> {
    let network: IpNet = text
        .parse()
        .map_err(|_| "must be an address and the length of its prefix, such as 10.0.0.0/8")?;
    if network == network.trunc() {
        Ok(canonical(network))
    } else {
        Err(format!("must have no bits behind its prefix, such as {}", network.trunc()))
    }
}

/// Reads the networks of `allowed`, in their order and each once.
pub fn check_networks(texts: &[String], faults: &mut Violations) -> Vec<IpNet> {
    if texts.len() > MAX_NETWORKS {
        faults.add("allowed", "too_long", format!("must have at most {MAX_NETWORKS} networks"));
        return Vec::new();
    }
    let mut networks = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        match network(text) {
            Ok(network) => networks.push(network),
            Err(description) => faults.add(format!("allowed[{n}]"), "invalid", description),
        }
    }
    networks.sort_unstable();
    networks.dedup();
    networks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(networks: &[&str]) -> AllowList {
        AllowList::new(networks.iter().map(|text| text.parse().unwrap()))
    }

    fn admits(networks: &[&str], address: &str) -> bool {
        list(networks).admits(Some(address.parse().unwrap()))
    }

    #[test]
    fn a_list_admits_its_networks_alone_and_none_admits_all() {
        assert!(admits(&["10.0.0.0/8", "2001:db8::/32"], "10.255.0.1"));
        assert!(admits(&["10.0.0.0/8", "2001:db8::/32"], "2001:db8:ffff::1"));
        assert!(!admits(&["10.0.0.0/8", "2001:db8::/32"], "11.0.0.1"));
        assert!(!admits(&["10.0.0.0/8", "2001:db8::/32"], "2001:db9::1"));
        assert!(admits(&[], "192.0.2.1") && list(&[]).admits(None));
        assert!(!list(&["0.0.0.0/0", "::/0"]).admits(None), "nowhere is on no list");
    }

    #[test]
    fn an_ipv4_address_is_the_same_mapped_to_ipv6() {
        for networks in [["10.0.0.0/8"], ["::ffff:10.0.0.0/104"]] {
            for (address, is) in [
                ("10.1.2.3", true),
                ("::ffff:10.1.2.3", true),
                ("::ffff:11.1.2.3", false),
                // IPv4-compatible addresses are no IPv4 addresses.
                ("::10.1.2.3", false),
            ] {
                assert_eq!(admits(&networks, address), is, "{networks:?} {address}");
            }
        }
        assert!(admits(&["::ffff:0:0/96"], "192.0.2.1") && !admits(&["::/0"], "192.0.2.1"));
        assert!(!admits(&["0.0.0.0/0"], "2001:db8::1"));
    }

    #[test]
    fn networks_are_read_in_their_order_each_once_and_every_fault_is_named() {
        let read = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let mut faults = Violations::new();
            let networks = check_networks(&texts, &mut faults);
            let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
            let faults: Vec<String> =
                faults.as_slice().iter().map(|fault| fault.field.clone()).collect();
            (networks, faults)
        };
        let (networks, faults) =
            read(&["2001:db8::/32", "::ffff:10.0.0.0/104", "10.0.0.0/8", "1.2.3.4/32"]);
        assert_eq!(
            (networks.as_slice(), faults.len()),
            (["1.2.3.4/32", "10.0.0.0/8", "2001:db8::/32"].map(str::to_owned).as_slice(), 0)
        );
        let (_, faults) = read(&["10.0.0.0/8", "10.0.0.1/8", "10.0.0.0", "x", "::1/129", " ::/0"]);
        assert_eq!(faults, ["allowed[1]", "allowed[2]", "allowed[3]", "allowed[4]", "allowed[5]"]);
        let many: Vec<&str> = vec!["10.0.0.0/8"; MAX_NETWORKS + 1];
        assert_eq!(read(&many).1, ["allowed"]);
    }

    #[test]
    fn who_would_lock_itself_out_is_told_its_address() {
        let list = list(&["10.0.0.0/8"]);
        assert!(list.check_admits(Some("10.0.0.1".parse().unwrap())).is_ok());
        let refused = list.check_admits(Some("::ffff:192.0.2.1".parse().unwrap())).unwrap_err();
        assert_eq!(
            (refused.code(), refused.member("caller_address")),
            (Code::CallerExcluded, Some("192.0.2.1"))
        );
        let refused = list.check_admits(None).unwrap_err();
        assert_eq!(
            (refused.code(), refused.member("caller_address")),
            (Code::CallerExcluded, None)
        );
        assert!(AllowList::default().check_admits(None).is_ok());
    }

    proptest! {
        #[test]
        fn a_network_admits_what_has_its_first_bits(bits: u32, length in 0..=32_u8, other: u32) {
            let network = Ipv4Net::new(Ipv4Addr::from_bits(bits), length).unwrap().trunc();
            let mapped = format!("::ffff:{}/{}", network.addr(), length + MAPPED_BITS);
            let same = length == 0 || (bits ^ other) >> (32 - u32::from(length)) == 0;
            let address = Ipv4Addr::from_bits(other);
            for list in [AllowList::new([network.into()]), AllowList::new([mapped.parse().unwrap()])] {
                prop_assert_eq!(list.admits(Some(address.into())), same);
                prop_assert_eq!(list.admits(Some(address.to_ipv6_mapped().into())), same);
            }
        }
    }
}

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::limits::proxies::{FORWARDED_BYTES_AT_MOST, FORWARDED_HOPS_AT_MOST};

const PROXY: &str = "10.0.0.1";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn proxies(header: ForwardedHeader) -> Proxies {
    let networks = ["10.0.0.0/8", "::ffff:192.168.0.0/112", "2001:db8:ffff::/48"];
    Proxies::new(&config::Proxies {
        trusted_proxies: networks.iter().map(|text| text.parse().unwrap()).collect(),
        forwarded_header: Some(header),
        proxy_protocol: false,
    })
}

fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

/// The client of a request with these lines by a proxy.
fn of(header: ForwardedHeader, lines: &[&[u8]]) -> Client {
    let name = match header {
        ForwardedHeader::Forwarded => "forwarded",
        _ => "x-forwarded-for",
    };
    let lines: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
    proxies(header).client(Client::at(address(PROXY)), &headers(&lines))
}

fn by_list(line: &str) -> Client {
    of(ForwardedHeader::XForwardedFor, &[line.as_bytes()])
}

fn by_element(line: &str) -> Client {
    of(ForwardedHeader::Forwarded, &[line.as_bytes()])
}

#[test]
fn a_header_is_read_from_its_end_to_the_first_that_is_no_proxy() {
    for (line, client) in [
        ("198.51.100.7", "198.51.100.7"),
        // What a client has sent itself stands before its address.
        ("127.0.0.1, 10.0.0.9, 198.51.100.7", "198.51.100.7"),
        ("garbage, \", 198.51.100.7, 10.2.3.4, 192.168.7.7", "198.51.100.7"),
        ("198.51.100.7,2001:db8:ffff::1", "198.51.100.7"),
        ("  198.51.100.7\t ,\t10.1.1.1 ", "198.51.100.7"),
        (",, 198.51.100.7 ,, ,10.1.1.1,", "198.51.100.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("198.51.100.7:4711", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("::ffff:10.1.1.1, 10.1.1.2", "10.1.1.1"),
        ("10.9.9.9, 10.1.1.1", "10.9.9.9"),
        ("", PROXY),
        (" , ,", PROXY),
    ] {
        assert_eq!(by_list(line), Client::at(address(client)), "{line}");
    }
}

#[test]
fn an_element_is_read_in_every_form_that_it_may_have() {
    for (line, client) in [
        ("for=198.51.100.7", "198.51.100.7"),
        ("For=\"198.51.100.7:4711\";proto=https;by=203.0.113.43", "198.51.100.7"),
        ("proto=http ; FOR = 1", "?"),
        ("proto=http ;FOR=198.51.100.7; host=\"a,b;c\\\"d\"", "198.51.100.7"),
        ("for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
        ("for=\"[2001:db8:cafe::17]\"", "2001:db8:cafe::17"),
        ("for=[2001:db8:cafe::17]:80", "2001:db8:cafe::17"),
        ("for=\"[2001:db8:cafe::17]:_port.7-x\"", "2001:db8:cafe::17"),
        ("for=\"198.51.100.7:_x\"", "198.51.100.7"),
        ("for=\"\\1\\98.51.100.7\"", "198.51.100.7"),
        ("for=192.0.2.43, for=198.51.100.17;by=10.0.0.2, for=10.0.0.3", "198.51.100.17"),
        ("for=_hidden, for=198.51.100.7", "198.51.100.7"),
        (",;, for=198.51.100.7 ,", "198.51.100.7"),
        ("for=10.0.0.7,for=10.0.0.8", "10.0.0.7"),
        ("for=\"[::ffff:198.51.100.7]\"", "198.51.100.7"),
        ("", PROXY),
    ] {
        let expected = match client {
            "?" => Client::unknown(address(PROXY)),
            client => Client::at(address(client)),
        };
        assert_eq!(by_element(line), expected, "{line}");
    }
}

#[test]
fn what_a_proxy_does_not_say_readably_is_not_known_and_is_nobodys_word() {
    for line in [
        "unknown",
        "_hidden",
        "198.51.100.7, unknown",
        "198.51.100.7, _hidden",
        "198.51.100.07",
        "198.51.100.7/32",
        "198.51.100.7 10.0.0.1",
        "198.51.100.7;198.51.100.8",
        "\"198.51.100.7\"",
        "198.51.100.7:",
        "198.51.100.7:123456",
        "198.51.100.7:_",
        "[198.51.100.7]",
        "[2001:db8::7",
        "2001:db8::7]",
        "[2001:db8::7]x",
        "fe80::1%eth0",
        "localhost",
        "0x7f.1",
        "é",
    ] {
        assert_eq!(by_list(line), Client::unknown(address(PROXY)), "{line}");
    }
    for line in [
        "for=unknown",
        "for=_hidden",
        "for=\"_hidden\"",
        "for=\"unknown:80\"",
        "proto=https",
        "198.51.100.7",
        "for",
        "for=",
        "for= 198.51.100.7",
        "for =198.51.100.7",
        "for=\"\"",
        "for=198.51.100.7;for=198.51.100.7",
        "for=198.51.100.7;FOR=198.51.100.8",
        "for=198.51.100.7 for=198.51.100.8",
        "for=198.51.100.7;secret=\"x",
        "for=\"198.51.100.7",
        "for=\"198.51.100.7\\",
        "for=\"198.51.100.7\"x",
        "for=198.51.100.7\u{e9}",
        "=198.51.100.7",
    ] {
        assert_eq!(by_element(line), Client::unknown(address(PROXY)), "{line}");
    }
    let behind = by_list("198.51.100.7, unknown, 10.7.7.7");
    assert_eq!(behind, Client::unknown(address("10.7.7.7")), "it counts with who has said so");
}

#[test]
fn a_string_that_a_client_does_not_close_does_not_swallow_what_proxies_add() {
    for sent in ["for=10.0.0.1;x=\"", "x=\"", "for=127.0.0.1;x=\"\\", "for=\"127.0.0.1"] {
        for added in [
            "for=198.51.100.7",
            "for=\"[2001:db8::7]:4711\"",
            "for=\"198.51.100.7\";by=\"_x\";proto=https",
            "by=\"[2001:db8:ffff::1]\";for=\"[2001:db8::7]\"",
        ] {
            let one_line = format!("{sent}, {added}");
            let client = by_element(&one_line);
            assert_eq!(client, Client::unknown(address(PROXY)), "{one_line}");
            let lines = [sent.as_bytes(), added.as_bytes()];
            let client = of(ForwardedHeader::Forwarded, &lines);
            let added_address = client.address.expect("a line of its own is read by itself");
            assert!(
                [address("198.51.100.7"), address("2001:db8::7")].contains(&added_address),
                "{added}"
            );
        }
    }
}

#[test]
fn lines_follow_each_other_as_if_they_were_one() {
    let lines: [&[u8]; 3] = [b"127.0.0.1", b"198.51.100.7, 10.0.0.2", b"10.0.0.3"];
    assert_eq!(of(ForwardedHeader::XForwardedFor, &lines), Client::at(address("198.51.100.7")));
    let lines: [&[u8]; 3] = [b"for=127.0.0.1", b"for=198.51.100.7", b"for=10.0.0.2, for=10.0.0.3"];
    assert_eq!(of(ForwardedHeader::Forwarded, &lines), Client::at(address("198.51.100.7")));
}

#[test]
fn one_header_is_read_and_the_other_is_not_and_strangers_are_not_believed() {
    let both = headers(&[
        ("x-forwarded-for", b"198.51.100.1"),
        ("forwarded", b"for=198.51.100.2"),
        ("x-real-ip", b"198.51.100.3"),
    ]);
    let proxy = Client::at(address(PROXY));
    for (header, client) in [
        (ForwardedHeader::XForwardedFor, "198.51.100.1"),
        (ForwardedHeader::Forwarded, "198.51.100.2"),
        (ForwardedHeader::None, PROXY),
    ] {
        assert_eq!(proxies(header).client(proxy, &both), Client::at(address(client)));
        for stranger in ["11.0.0.1", "192.0.2.1", "2001:db8::1", "::1"] {
            let stranger = Client::at(address(stranger));
            assert_eq!(proxies(header).client(stranger, &both), stranger);
        }
        let unknown = Client::unknown(address(PROXY));
        assert_eq!(proxies(header).client(unknown, &both), unknown);
        assert_eq!(Proxies::none().client(proxy, &both), proxy);
    }
    let mapped = Client::at(address("::ffff:10.0.0.1"));
    assert_eq!(
        proxies(ForwardedHeader::XForwardedFor).client(mapped, &both),
        Client::at(address("198.51.100.1"))
    );
}

#[test]
fn much_is_not_read() {
    let proxies_only = vec!["10.0.0.2"; FORWARDED_HOPS_AT_MOST].join(",");
    assert_eq!(by_list(&proxies_only), Client::at(address("10.0.0.2")));
    let unknown = Client::unknown(address("10.0.0.2"));
    assert_eq!(by_list(&format!("198.51.100.7,{proxies_only}")), unknown);
    let elements = vec!["for=10.0.0.2"; FORWARDED_HOPS_AT_MOST].join(",");
    assert_eq!(by_element(&elements), Client::at(address("10.0.0.2")));
    assert_eq!(by_element(&format!("for=198.51.100.7,{elements}")), unknown);
    let spaces = " ".repeat(FORWARDED_BYTES_AT_MOST);
    assert_eq!(by_list(&format!("198.51.100.7,{spaces}")), Client::unknown(address(PROXY)));
    assert_eq!(by_list(&format!("{spaces},198.51.100.7")), Client::at(address("198.51.100.7")));
    let commas = ",".repeat(FORWARDED_BYTES_AT_MOST);
    assert_eq!(by_list(&format!("198.51.100.7,{commas}")), Client::unknown(address(PROXY)));
    let long = format!("for=198.51.100.7;x=\"{spaces}\"");
    assert_eq!(by_element(&long), Client::unknown(address(PROXY)));
    let lines = [long.as_bytes(), b"for=198.51.100.8"];
    assert_eq!(of(ForwardedHeader::Forwarded, &lines), Client::at(address("198.51.100.8")));
}

/// What somebody may write into a header.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "for=",
            "For=",
            "by=",
            "\"",
            "\\",
            ",",
            ";",
            "=",
            " ",
            "\t",
            "[",
            "]",
            ":",
            "unknown",
            "_hidden",
            "10.0.0.1",
            "127.0.0.1",
            "2001:db8::1",
            "[::1]:80",
            "for=10.0.0.1",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(prop_oneof![0x20..0x7f_u8, 0x80..=0xff_u8], 0..4),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn whatever_a_client_sends_is_never_believed(sent in anything(), host: u8, is_one_line: bool) {
        let client = IpAddr::from([198, 51, 100, host]);
        let unknown = Client::unknown(address(PROXY));
        for (header, added, separator) in [
            (ForwardedHeader::XForwardedFor, client.to_string(), ", "),
            (ForwardedHeader::Forwarded, format!("for={client}"), ", "),
            (ForwardedHeader::Forwarded, format!("for=\"{client}:80\";proto=https"), ","),
        ] {
            let line = [&sent, separator.as_bytes(), added.as_bytes()].concat();
            let found = if is_one_line {
                of(header, &[&line])
            } else {
                of(header, &[&sent, added.as_bytes()])
            };
            let is_sure = header == ForwardedHeader::XForwardedFor || !is_one_line;
            prop_assert!(
                found == Client::at(client) || !is_sure && found == unknown,
                "{:?} of {}", found, String::from_utf8_lossy(&line)
            );
        }
    }

    #[test]
    fn any_address_in_any_of_its_forms_is_read(v4: u32, v6: u128, port: u16) {
        let addresses = [IpAddr::from(v4.to_be_bytes()), IpAddr::from(v6.to_be_bytes())];
        for client in addresses {
            let expected = Client::at(client);
            let with_port = std::net::SocketAddr::new(client, port).to_string();
            let bare = match client {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) => format!("[{v6}]"),
            };
            for text in [client.to_string(), bare.clone(), with_port.clone()] {
                prop_assert_eq!(by_list(&text), expected, "{}", text);
            }
            for text in [bare, with_port] {
                prop_assert_eq!(by_element(&format!("for=\"{text}\"")), expected, "{}", text);
            }
        }
    }
}

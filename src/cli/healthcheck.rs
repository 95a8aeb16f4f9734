//! `offboard healthcheck`.

use std::net::SocketAddr;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use http::Method;

use super::http::send;
use super::output::print;
use crate::config::address;
use crate::error::{Error, Result};

/// Arguments of `healthcheck`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Where the service serves probes
    #[arg(long, env = "OFFBOARD_ADMIN_ADDR", default_value = "127.0.0.1:9464", value_parser = address, value_name = "ADDR")]
    admin_addr: SocketAddr,

    /// Ask only whether the process is alive, not whether it is ready
    #[arg(long)]
    live: bool,
}

/// Prints what the service says of itself; exit code 0 if it is ready, else 1.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut address = arguments.admin_addr;
    // A service that listens everywhere is asked here.
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let path = if arguments.live { "livez" } else { "readyz" };
    let answer = send(Method::GET, &format!("http://{address}/{path}"), &[], Bytes::new()).await?;
    // The port of calls returns a problem document, which has a detail.
    if let Some(detail) = answer.json()["detail"].as_str().filter(|_| !answer.status.is_success()) {
        let hint = "`--admin-addr` takes the port of probes, 9464 unless it was set otherwise";
        return Err(Error::unavailable(format!(
            "What listens at {address} has no probes: {hint} ({detail})."
        )));
    }
    print(String::from_utf8_lossy(&answer.body).trim_end())?;
    Ok(if answer.status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

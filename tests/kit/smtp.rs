//! A real SMTP server that keeps what it takes.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::port::free_port;

/// `aiosmtpd`, with a Maildir.
pub struct SmtpSink {
    port: u16,
    folder: TempDir,
    process: Option<Child>,
}

/// A mail that was taken.
#[derive(Clone, Debug)]
pub struct Mail {
    headers: String,
    /// Its text.
    pub text: String,
}

impl Mail {
    /// A header on one line, by its name.
    pub fn header(&self, name: &str) -> &str {
        let line = self
            .headers
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(header, _)| *header == name));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.headers)).1
    }
}

impl SmtpSink {
    /// Starts a server.
    pub async fn start() -> SmtpSink {
        let mut sink = SmtpSink::not_started();
        sink.start_again(&[]).await;
        sink
    }

    /// A server that is not there yet, on a port that is free now.
    pub fn not_started() -> SmtpSink {
        let port = free_port();
        SmtpSink { port, folder: TempDir::new().unwrap(), process: None }
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address())
    }

    /// Starts it with more arguments, and waits until it can be reached.
    pub async fn start_again(&mut self, arguments: &[&str]) {
        assert!(self.process.is_none(), "it runs");
        let mut command = Command::new("aiosmtpd");
        command
            .args(["-n", "-l", &self.address(), "-c", "aiosmtpd.handlers.Mailbox"])
            .args(arguments)
            .arg(self.folder.path().join("mails"));
        let process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.process =
            Some(process.expect("`aiosmtpd` is on the PATH; script/bootstrap installs it"));
        for _ in 0..1500 {
            if TcpStream::connect(self.address()).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("aiosmtpd does not get ready");
    }

    /// The mails that it has taken, in any order.
    pub fn mails(&self) -> Vec<Mail> {
        let Ok(files) = std::fs::read_dir(self.folder.path().join("mails/new")) else {
            return Vec::new();
        };
        let texts = files.map(|file| {
            std::fs::read_to_string(file.unwrap().path()).unwrap().replace("\r\n", "\n")
        });
        let mails = texts.map(|text| {
            let (headers, text) = text.split_once("\n\n").expect("a mail has headers");
            let is_quoted =
                headers.lines().any(|line| line == "Content-Transfer-Encoding: quoted-printable");
            Mail {
                headers: headers.to_owned(),
                text: if is_quoted { unquoted(text) } else { text.to_owned() },
            }
        });
        mails.collect()
    }
}

/// Text as it was before it was made quoted-printable (RFC 2045, section 6.7).
fn unquoted(text: &str) -> String {
    let joined = text.replace("=\n", "");
    let mut pieces = joined.split('=');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

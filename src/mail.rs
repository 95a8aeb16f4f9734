//! Mails by SMTP: their content, and how they are sent to a server.

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use url::Url;

use crate::error::{Code, Error, Result, Violations};

/// How long a server may keep silent.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest address (RFC 5321, section 4.5.3.1.3, without the angle brackets).
const MAX_ADDRESS: usize = 254;

/// The server that sends mails, and their sender.
#[derive(Clone, Debug)]
pub struct MailSettings {
    /// `smtp://` (plain), `smtp://…?tls=required` (STARTTLS) or `smtps://` (TLS from the start), with credentials where the server wants any.
    pub url: String,
    /// The sender's address, with a name if need be: `Offboard <offboard@example.com>`.
    pub from: String,
    /// Root certificates that the server is checked by, instead of those of the system.
    pub ca_file: Option<PathBuf>,
}

/// A mail of plain text to one person.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The address.
    pub to: String,
    /// One line.
    pub subject: String,
    /// The text.
    pub text: String,
    /// The message id. A mail that is sent twice has the same one, so that receivers can recognise it.
    pub id: String,
}

/// Why a mail was refused. The text is from the server or the connection; it contains no credentials.
#[derive(Debug)]
pub enum Refusal {
    /// It may be taken later.
    ForNow(String),
    /// It will never be taken.
    ForGood(String),
}

/// Sends mails to a server. Each uses a connection of its own.
#[derive(Clone, Debug)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Mailer {
    /// Checks the settings. Does not connect, so a service may start before its mail server does.
    pub fn new(settings: &MailSettings) -> Result<Mailer> {
        let mut faults = Violations::new();
        let from = settings.from.parse();
        if from.is_err() {
            faults.add(
                "--mail-from",
                "invalid",
                "must be an address, such as `Offboard <offboard@example.com>`",
            );
        }
        let transport = faults.check_with(transport(settings))?;
        let from = from.map_err(Error::internal)?;
        Ok(Mailer { transport, from })
    }

    /// Sends a mail to the server.
    pub async fn send(&self, mail: &Mail) -> Result<(), Refusal> {
        let message = self.message(mail)?;
        match tokio::time::timeout(TIMEOUT * 2, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.is_permanent() && !is_about_us(&error) => {
                Err(Refusal::ForGood(one_line(&error.to_string())))
            }
            Ok(Err(error)) => Err(Refusal::ForNow(one_line(&error.to_string()))),
            Err(_) => Err(Refusal::ForNow("the mail server did not answer in time".to_owned())),
        }
    }

    fn message(&self, mail: &Mail) -> Result<Message, Refusal> {
        let unfit = |error: &dyn std::fmt::Display| {
            Refusal::ForGood(format!("the mail cannot be written: {error}"))
        };
        let to: Address = mail.to.parse().map_err(|error| unfit(&error))?;
        let builder: MessageBuilder = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(one_line(&mail.subject))
            .message_id(Some(format!("<{}@{}>", mail.id, self.from.email.domain())))
            .date_now()
            .raw_header(automatic())
            .header(ContentType::TEXT_PLAIN);
        builder.body(mail.text.clone()).map_err(|error| unfit(&error))
    }
}

/// The way to the server.
fn transport(settings: &MailSettings) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let url = Url::parse(&settings.url).map_err(|_| setting("--smtp-url", FORMS))?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| setting("--smtp-url", FORMS))?;
    let tls =
        url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
    let parameters = || parameters(host, settings.ca_file.as_ref());
    let (port, tls) = match (url.scheme(), tls.as_deref()) {
        ("smtps", None) => (465, Tls::Wrapper(parameters()?)),
        ("smtp", Some("required")) => (587, Tls::Required(parameters()?)),
        ("smtp", None) => (25, Tls::None),
        _ => return Err(setting("--smtp-url", FORMS)),
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(url.port().unwrap_or(port))
        .timeout(Some(TIMEOUT));
    if let Some(password) = url.password() {
        if matches!(tls, Tls::None) && !is_loopback(host) {
            return Err(setting(
                "--smtp-url",
                "must use TLS (`smtps://`, or `?tls=required`) where it has a password",
            ));
        }
        transport =
            transport.credentials(Credentials::new(decoded(url.username())?, decoded(password)?));
    }
    Ok(transport.tls(tls).build())
}

const FORMS: &str = "must be `smtp://HOST:PORT`, `smtp://USER:PASSWORD@HOST:PORT?tls=required` or `smtps://USER:PASSWORD@HOST:PORT`";

/// Returns whether mail can be sent to this address.
pub fn is_address(text: &str) -> bool {
    text.len() <= MAX_ADDRESS && text.parse::<Address>().is_ok()
}

/// A text without what would end its line.
pub fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// Asks robots not to answer (RFC 3834).
fn automatic() -> lettre::message::header::HeaderValue {
    use lettre::message::header::{HeaderName, HeaderValue};
    HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned())
}

fn setting(flag: &'static str, fault: &str) -> Error {
    Error::invalid(flag, "invalid", fault)
}

fn decoded(text: &str) -> Result<String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| setting("--smtp-url", FORMS))
}

fn parameters(host: &str, ca_file: Option<&PathBuf>) -> Result<TlsParameters> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(file) = ca_file {
        let unreadable = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(
                Code::Unavailable,
                format!("--smtp-ca-file {} cannot be read.", file.display()),
            )
            .caused_by(error)
        };
        let pem = std::fs::read(file).map_err(|error| unreadable(error.into()))?;
        let roots = Certificate::from_pem(&pem).map_err(|error| unreadable(error.into()))?;
        builder = builder
            .certificate_store(lettre::transport::smtp::client::CertificateStore::None)
            .add_root_certificate(roots);
    }
    builder.build().map_err(Error::internal)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Returns whether the server refuses the sender rather than the mail: 530, 534, 535, 538. The operator must fix that.
fn is_about_us(error: &lettre::transport::smtp::Error) -> bool {
    error.status().is_some_and(|status| status.to_string().starts_with("53"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> MailSettings {
        MailSettings {
            url: url.to_owned(),
            from: "Offboard <offboard@example.com>".to_owned(),
            ca_file: None,
        }
    }

    #[test]
    fn urls_are_plain_starttls_or_tls() {
        for good in [
            "smtp://mail",
            "smtp://mail:2525",
            "smtp://u:p%40@mail?tls=required",
            "smtps://u:p@mail",
            "smtp://u:p@127.0.0.1:25",
        ] {
            assert!(Mailer::new(&settings(good)).is_ok(), "{good}");
        }
        for bad in [
            "mail",
            "http://mail",
            "smtp://",
            "smtp://mail?tls=maybe",
            "smtps://mail?tls=required",
            "",
        ] {
            assert_eq!(
                Mailer::new(&settings(bad)).unwrap_err().violations()[0].field,
                "--smtp-url",
                "{bad}"
            );
        }
    }

    #[test]
    fn a_password_does_not_travel_in_the_open() {
        let refused = Mailer::new(&settings("smtp://someone:secret@mail.example.com")).unwrap_err();
        assert!(
            refused.to_string().contains("must use TLS") && !refused.to_string().contains("secret"),
            "{refused}"
        );
    }

    #[test]
    fn an_address_is_one_address_and_nothing_else() {
        assert!(is_address("jo@example.com") && is_address("jo+x@mail.example.com"));
        let long = format!("{}@example.com", "x".repeat(250));
        for bad in [
            "",
            "jo",
            "true",
            "a@",
            "@b.c",
            "Jo <jo@example.com>",
            "a@b.c,d@e.f",
            "a@b.c\r\nBcc: d@e.f",
            &long,
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn a_letter_reports_who_sent_it_and_cannot_be_given_more_headers() {
        let mailer = Mailer::new(&settings("smtp://mail")).unwrap();
        let (subject, text) = ("Done\r\nBcc: other@example.com".to_owned(), "Grüße\n".to_owned());
        let mail = Mail { to: "jo@example.com".to_owned(), subject, text, id: "1-2".to_owned() };
        let written = String::from_utf8(mailer.message(&mail).unwrap().formatted()).unwrap();
        for line in [
            "To: jo@example.com",
            "Message-ID: <1-2@example.com>",
            "Auto-Submitted: auto-generated",
            "Subject: Done  Bcc: other@example.com",
        ] {
            assert!(written.contains(&format!("{line}\r\n")), "{line} is not in {written}");
        }
        assert!(!written.contains("\nBcc"), "{written}");
    }
}

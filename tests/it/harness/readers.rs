//! Mail as other programs read it: Python's `email`, which names every defect that it finds, and npm's mailparser.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::tools;

/// What two programs read in one message; see `tests/tools/read_mail.py` for the names.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// What Python's `email` says.
    pub(crate) email: Value,
    /// What npm's mailparser says.
    pub(crate) mailparser: Value,
}

impl Reading {
    /// The names of the header's fields in lower case, sorted.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.email["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
    }

    /// A field of the header as Python reads it.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> &str {
        self.email["fields"][name].as_str().unwrap_or_else(|| panic!("no {name}: {}", self.email))
    }

    /// The text part.
    pub(crate) fn text(&self) -> &str {
        self.email["parts"][0]["body"].as_str().unwrap()
    }

    /// The HTML part.
    pub(crate) fn html(&self) -> &str {
        self.email["parts"][1]["body"].as_str().unwrap()
    }
}

/// Has a message read.
#[track_caller]
pub(crate) fn read(mail: &[u8]) -> Reading {
    read_all([mail]).remove(0)
}

/// Has messages read; fails when a reader finds a flaw or the two do not agree.
#[track_caller]
pub(crate) fn read_all<'a>(mails: impl IntoIterator<Item = &'a [u8]>) -> Vec<Reading> {
    let mails: Vec<&[u8]> = mails.into_iter().collect();
    let input = json!(mails.iter().map(|mail| STANDARD.encode(mail)).collect::<Vec<_>>()).to_string();
    let said = |command| match tools::run_json(command, &input) {
        Value::Array(said) => said,
        other => panic!("{other}"),
    };
    let (email, mailparser) = (said(tools::python("read_mail.py")), said(tools::node("read_mail.cjs")));
    assert_eq!((email.len(), mailparser.len()), (mails.len(), mails.len()));
    let readings = email.into_iter().zip(mailparser).map(|(email, mailparser)| Reading { email, mailparser });
    let readings: Vec<Reading> = readings.collect();
    for (reading, mail) in readings.iter().zip(mails) {
        let Reading { email, mailparser } = reading;
        let mail = String::from_utf8_lossy(mail);
        assert_eq!(email["flaws"], json!([]), "{mail}");
        for same in ["names", "from", "to", "reply_to", "date", "message_id"] {
            assert_eq!(email[same], mailparser[same], "{same}: {mail}");
        }
        assert_eq!(mailparser["attachments"], 0, "{mail}");
    }
    readings
}

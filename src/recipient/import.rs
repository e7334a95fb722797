//! Files of people, read line by line in bounded memory.

use serde_json::{Map, Value};
use tokio::io::AsyncRead;

use crate::address::EmailAddress;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated, with a header (RFC 4180).
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// What the columns and fields beyond the known ones are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Attributes of the person, which are kept: an import.
    Attributes,
    /// Data for this one message: a campaign's recipients.
    Data,
}

/// Why a file cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The header cannot be used; says what to do.
    #[error("{0}")]
    Header(String),
    /// The bytes stopped coming.
    #[error("the upload broke off: {0}")]
    Broken(#[from] std::io::Error),
}

/// One person of a file. What a line leaves empty is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The address.
    pub email: EmailAddress,
    /// The name.
    pub name: Option<String>,
    /// The id in the company's own system.
    pub external_id: Option<String>,
    /// The language tag.
    pub locale: Option<String>,
    /// Tags.
    pub tags: Option<Vec<String>>,
    /// Attributes of an import, data of a campaign's recipients.
    pub extra: Map<String, Value>,
}

/// One line of a file: a person, or why there is none. No reason repeats an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its number in the file from 1, the header included; where a record begins when it has several lines.
    pub number: u64,
    /// What it holds.
    pub record: Result<Record, String>,
}

/// Reads the lines of a file.
pub struct Lines<R> {
    source: R,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads the header of a CSV file.
    ///
    /// # Errors
    /// [`ImportError::Header`] when it has no column `email` or one column twice.
    pub async fn open(source: R, format: Format, extra: Extra) -> Result<Self, ImportError> {
        let _ = (format, extra);
        Ok(Self { source })
    }

    /// The next lines, at most `limit`; none at the end of the file.
    ///
    /// # Errors
    /// [`ImportError::Broken`].
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Line>, ImportError> {
        let _ = (limit, &mut self.source);
        Ok(Vec::new())
    }
}

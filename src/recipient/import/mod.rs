//! Files of people, read line by line in bounded memory.
//!
//! Pure but for the stream it reads. A line that cannot be used is given with its number and the reason, and the next
//! one is read; only a header that cannot be used, or a stream that breaks off, ends the reading. No reason repeats an
//! address or any other value of the file.
//!
//! CSV has a header: `email,name,external_id,locale,tags` in any order, of which only `email` must be there; `tags` are
//! parted by `;`. An import knows `brands`, such as `acme;beta`, and `policies`, such as `privacy=3;terms=1`, besides. Any
//! other column goes to [`Record::extra`]. An empty field says nothing, but in a campaign's data it is the empty text.
//! NDJSON has the same names, `tags` and `brands` as arrays, `policies` as an object and the rest under `attributes` or
//! `data`. A byte order mark and empty lines are stepped over.

mod csv;
mod record;
#[cfg(test)]
mod tests;
mod window;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::io::AsyncRead;

use self::csv::Records;
use self::record::Columns;
use self::window::Window;
use crate::address::EmailAddress;

/// Longest record, in octets.
const MAX_LINE: usize = 64 * 1024;

/// Most octets of a file whose lines are held at a time, the last of them aside.
pub const MAX_OCTETS: usize = 2 * 1024 * 1024;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated, with a header (RFC 4180).
    Csv,
    /// One JSON object a line.
    Ndjson,
}

impl Format {
    /// The format that a `Content-Type` names.
    pub fn from_content_type(value: &str) -> Option<Self> {
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "text/csv" => Some(Self::Csv),
            "application/x-ndjson" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// What the columns and fields beyond the known ones are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Attributes of the person, which are kept: an import.
    Attributes,
    /// Data for this one message: a campaign's recipients.
    Data,
}

impl Extra {
    fn field(self) -> &'static str {
        match self {
            Self::Attributes => "attributes",
            Self::Data => "data",
        }
    }
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
    /// Tags, each once.
    pub tags: Option<Vec<String>>,
    /// Slugs of the brands that the person belongs to, and no others, each once; of an import alone.
    pub brands: Option<Vec<String>>,
    /// Which version of which policy was accepted, by its slug; of an import alone.
    pub policies: Map<String, Value>,
    /// Attributes of an import, data of a campaign's recipients.
    pub extra: Map<String, Value>,
}

/// One line of a file: a person, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its number in the file from 1, the header included; where a record begins when it has several lines.
    pub number: u64,
    /// What it holds.
    pub record: Result<Record, String>,
}

/// Most errors that a report names.
const MAX_ERRORS: usize = 1000;

/// Why a line could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct LineError {
    /// The line of the file from 1, the header included.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// The lines of a file that could not be used: all are counted, the first 1,000 named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Rejections {
    /// How many they are.
    pub rejected: u64,
    /// Why, for the first 1,000 of them.
    pub errors: Vec<LineError>,
    /// How many more there were.
    pub errors_left_out: u64,
}

impl Rejections {
    /// Counts one more.
    pub fn add(&mut self, line: u64, reason: String) {
        self.rejected += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(LineError { line, reason });
        } else {
            self.errors_left_out += 1;
        }
    }
}

/// Reads the lines of a file.
pub struct Lines<R>(Kind<R>);

enum Kind<R> {
    Csv { records: Box<Records<R>>, columns: Columns },
    Ndjson { window: Window<R>, line: u64, extra: Extra },
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Opens a file; of CSV it reads the header.
    ///
    /// # Errors
    /// [`ImportError::Header`] when the header has no column `email` or one column twice, [`ImportError::Broken`].
    pub async fn open(source: R, format: Format, extra: Extra) -> Result<Self, ImportError> {
        let window = Window::open(source).await?;
        if format == Format::Ndjson {
            return Ok(Self(Kind::Ndjson { window, line: 1, extra }));
        }
        let mut records = Box::new(Records::new(window));
        match records.next().await? {
            None => Err(ImportError::Header(
                "the file is empty; CSV begins with a header such as email,name,external_id,locale,tags"
                    .to_owned(),
            )),
            Some((_, Err(reason))) => {
                Err(ImportError::Header(format!("the header cannot be read: {reason}")))
            }
            Some((_, Ok(()))) => {
                let columns = Columns::read(records.fields(), extra).map_err(ImportError::Header)?;
                Ok(Self(Kind::Csv { records, columns }))
            }
        }
    }

    /// The next lines, at most `limit`, and fewer where they are long: no more than [`MAX_OCTETS`] of the file and what
    /// the last of them has beyond it. None at the end of the file.
    ///
    /// # Errors
    /// [`ImportError::Broken`].
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Line>, ImportError> {
        let mut lines = Vec::new();
        let enough = self.skipped() + MAX_OCTETS;
        while lines.len() < limit && self.skipped() < enough {
            let Some(line) = self.next_line().await? else { break };
            lines.push(line);
        }
        Ok(lines)
    }

    fn skipped(&self) -> usize {
        match &self.0 {
            Kind::Csv { records, .. } => records.skipped(),
            Kind::Ndjson { window, .. } => window.skipped(),
        }
    }

    async fn next_line(&mut self) -> Result<Option<Line>, ImportError> {
        match &mut self.0 {
            Kind::Csv { records, columns } => {
                let Some((number, read)) = records.next().await? else { return Ok(None) };
                let record = match read {
                    Ok(()) => columns.record(records.fields()),
                    Err(reason) => Err(reason.to_owned()),
                };
                Ok(Some(Line { number, record }))
            }
            Kind::Ndjson { window, line, extra } => {
                while window.peek().await?.is_some() {
                    let number = *line;
                    *line += 1;
                    if let Some(record) = next_object(window, *extra).await? {
                        return Ok(Some(Line { number, record }));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// The next line as an object; none when it is empty.
async fn next_object<R: AsyncRead + Unpin>(
    window: &mut Window<R>,
    extra: Extra,
) -> std::io::Result<Option<Result<Record, String>>> {
    let mut looked = 0;
    let end = loop {
        let bytes = window.bytes();
        if let Some(at) = bytes[looked..].iter().position(|&b| b == b'\n') {
            break looked + at;
        }
        looked = bytes.len();
        if looked > MAX_LINE || window.has_ended() {
            break looked;
        }
        window.fill().await?;
    };
    if end > MAX_LINE {
        window.skip_line().await?;
        return Ok(Some(Err("the line is longer than 64 KB".to_owned())));
    }
    let line = window.bytes()[..end].trim_ascii();
    let record = (!line.is_empty()).then(|| record::from_json(line, extra));
    let with_line_feed = window.bytes().len().min(end + 1);
    window.skip(with_line_feed);
    Ok(record)
}

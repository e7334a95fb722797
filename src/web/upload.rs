//! Uploads: files that are read as they arrive and never held whole.

use std::io;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use futures_util::TryStreamExt;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::Problem;
use super::json::media_type;
use crate::recipient::import::{Format, ImportError};

/// Longest upload in octets: 2 GiB.
const MAX_UPLOAD: usize = 2 * 1024 * 1024 * 1024;

/// A body that is not read yet. An extractor; the limit on bodies that are held in memory is not for it.
#[derive(Debug)]
pub struct Upload {
    media_type: String,
    body: Body,
}

impl Upload {
    /// What it says it is, in lower case and without parameters; empty when it says nothing.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// How it is written, when it is a file of people.
    ///
    /// # Errors
    /// 415 when it is neither CSV nor NDJSON.
    pub fn format(&self) -> Result<Format, Problem> {
        Format::from_content_type(&self.media_type)
            .ok_or_else(|| Problem::unsupported("text/csv or application/x-ndjson"))
    }

    /// Its octets as they arrive. Reading fails with [`io::ErrorKind::FileTooLarge`] after 2 GiB.
    pub fn into_reader(self) -> impl AsyncRead + Send + Unpin {
        let mut left = MAX_UPLOAD;
        let counted = self.body.into_data_stream().map_err(io::Error::other).and_then(move |octets| {
            let fits = octets.len() <= left;
            left = left.saturating_sub(octets.len());
            std::future::ready(if fits { Ok(octets) } else { Err(io::ErrorKind::FileTooLarge.into()) })
        });
        StreamReader::new(counted)
    }
}

impl<S: Send + Sync> FromRequest<S> for Upload {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self { media_type: media_type(request.headers()), body: request.into_body() })
    }
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Header(reason) => Self::field("", reason),
            ImportError::Broken(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Self::too_large(MAX_UPLOAD)
            }
            ImportError::Broken(_) => Self::malformed(
                "The upload broke off. What came before is stored; send the file again, it changes nothing twice.",
            ),
        }
    }
}

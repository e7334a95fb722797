//! What the body of a `POST` to an unsubscribe link says.
//!
//! Pure, and lenient: failing to honour a refusal is the worse error, so whatever cannot be read asks for nothing in
//! particular and the caller opts out as if the body were empty. A mail program's one click (RFC 8058 §3.1) may come
//! urlencoded or as multipart/form-data with any boundary, with or without preamble.

/// The fields that matter, as far as they could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// `List-Unsubscribe=One-Click` (RFC 8058 §3.1): a mail program sent it, not the page.
    pub one_click: bool,
    /// Whether a button of the page sent it.
    pub page: bool,
    /// The asked scope.
    pub scope: Option<AskedScope>,
    /// Whether to take back what this link did. Never together with `one_click`.
    pub undo: bool,
}

/// A scope as the page's buttons name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedScope {
    /// The topic of the message.
    Topic,
    /// Its brand.
    Brand,
    /// Every brand here.
    All,
}

impl AskedScope {
    /// Every scope, the narrowest first.
    pub const ALL: [Self; 3] = [Self::Topic, Self::Brand, Self::All];

    /// The word in the form and in a brand's `one_click_scope`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Brand => "brand",
            Self::All => "all",
        }
    }

    /// The scope of this word, upper and lower case alike.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| word.eq_ignore_ascii_case(scope.as_str()))
    }
}

impl Form {
    /// Reads a body of this content type; what it is not sure of it leaves out.
    pub fn read(content_type: &str, body: &[u8]) -> Self {
        let mut form = Self::default();
        for (name, value) in fields(content_type, body) {
            form.take(&name, &value);
        }
        if form.one_click {
            form.undo = false;
            form.page = false;
        }
        form
    }

    fn take(&mut self, name: &str, value: &str) {
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "list-unsubscribe" => self.one_click |= value.eq_ignore_ascii_case("one-click"),
            "scope" => self.scope = AskedScope::from_word(value).or(self.scope),
            "page" => self.page |= value == "1",
            "undo" => self.undo |= value == "1",
            _ => {}
        }
    }
}

/// Name and value of each field of a form, urlencoded or multipart/form-data, as far as they can be read.
pub fn fields(content_type: &str, body: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(body);
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("multipart/form-data") || text.trim_start().starts_with("--") {
        return parts(content_type, &text);
    }
    let pairs = url::form_urlencoded::parse(text.trim().as_bytes());
    pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// Name and value of each part of a multipart/form-data body (RFC 7578).
fn parts(content_type: &str, text: &str) -> Vec<(String, String)> {
    let delimiter = match parameter(content_type, "boundary") {
        Some(boundary) => format!("--{boundary}"),
        // Without a boundary the first line that looks like one must be it.
        None => text.lines().find(|line| line.starts_with("--")).unwrap_or("--").trim_end().to_owned(),
    };
    if delimiter == "--" {
        return Vec::new();
    }
    text.split(delimiter.as_str()).skip(1).filter_map(part).collect()
}

fn part(text: &str) -> Option<(String, String)> {
    let text = text.replace("\r\n", "\n");
    let (head, value) = text.trim_start_matches([' ', '\t']).strip_prefix('\n')?.split_once("\n\n")?;
    let disposition = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    Some((parameter(disposition, "name")?, value.to_owned()))
}

/// A parameter of a header, quoted or not.
fn parameter(header: &str, wanted: &str) -> Option<String> {
    let mut rest = header.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"').unwrap_or(quoted.len());
                (&quoted[..end], quoted[end..].trim_start_matches('"'))
            }
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim(), &after[end..])
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value.to_owned()).filter(|value| !value.is_empty());
        }
        rest = next.trim_start().strip_prefix(';').unwrap_or(next);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URLENCODED: &str = "application/x-www-form-urlencoded";

    fn one_click() -> Form {
        Form { one_click: true, ..Form::default() }
    }

    #[test]
    fn a_mail_programs_click_is_read_in_every_form_it_takes() {
        let multipart = |boundary: &str| {
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--{boundary}--\r\n"
            )
        };
        let with_preamble = format!("This is a preamble.\r\n{}", multipart("b1"));
        let typed = "--b1\nContent-Type: text/plain\nContent-Disposition: form-data; name=List-Unsubscribe\n\nOne-Click\n--b1--";
        for (content_type, body) in [
            (URLENCODED, "List-Unsubscribe=One-Click".to_owned()),
            ("", "List-Unsubscribe=One-Click".to_owned()),
            (URLENCODED, "list-unsubscribe=one-click\r\n".to_owned()),
            (
                "application/x-www-form-urlencoded; charset=utf-8",
                "x=1&List-Unsubscribe=One%2DClick".to_owned(),
            ),
            ("multipart/form-data; boundary=b1", multipart("b1")),
            ("multipart/form-data; boundary=\"b 1\"", multipart("b 1")),
            ("Multipart/Form-Data; charset=utf-8; Boundary=b1", multipart("b1")),
            ("multipart/form-data; charset=\"utf-8\"; boundary=\"b1\"", multipart("b1")),
            ("multipart/form-data", multipart("b1")),
            ("", multipart("b1")),
            ("multipart/form-data; boundary=b1", with_preamble),
            ("multipart/form-data; boundary=b1", typed.to_owned()),
        ] {
            assert_eq!(Form::read(content_type, body.as_bytes()), one_click(), "{content_type} {body:?}");
        }
    }

    #[test]
    fn the_pages_buttons_are_read() {
        let read = |body: &str| Form::read(URLENCODED, body.as_bytes());
        let button = Form { page: true, scope: Some(AskedScope::Topic), ..Form::default() };
        assert_eq!(read("page=1&scope=topic"), button);
        assert_eq!(read("scope=ALL").scope, Some(AskedScope::All));
        assert_eq!(read("scope=everything").scope, None);
        assert!(read("undo=1").undo);
        assert!(!read("undo=0").undo && !read("undo=").undo && !read("undo=true").undo);
        assert_eq!(read(""), Form::default());
    }

    #[test]
    fn a_mail_programs_click_never_takes_anything_back() {
        assert!(!Form::read(URLENCODED, b"undo=1&List-Unsubscribe=One-Click").undo);
    }

    proptest! {
        #[test]
        fn no_body_is_too_odd(content_type in "\\PC{0,60}", body in prop::collection::vec(any::<u8>(), 0..300)) {
            Form::read(&content_type, &body);
        }

        #[test]
        fn one_click_is_read_whatever_the_boundary_and_whatever_stands_around_it(
            boundary in "[0-9A-Za-z'()+_,./:=?-]{1,70}",
            quoted in any::<bool>(),
            preamble in "[a-z \\r\\n]{0,30}",
            typed in any::<bool>(),
            others in prop::collection::vec(("[a-z]{1,8}", "[a-z \\n]{0,20}"), 0..4),
            after in any::<bool>(),
            end in prop::sample::select(vec!["\r\n", "\n"]),
        ) {
            // Unquoted it ends at what may not stand in a token (RFC 2045 §5.1).
            let quoted = quoted || boundary.contains(|c: char| "()<>@,;:\\\"/[]?= ".contains(c));
            let kind = if quoted {
                format!("multipart/form-data; boundary=\"{boundary}\"")
            } else {
                format!("multipart/form-data; boundary={boundary}")
            };
            let part = |name: &str, value: &str| {
                let kind = if typed { format!("Content-Type: text/plain{end}") } else { String::new() };
                format!("--{boundary}{end}{kind}Content-Disposition: form-data; name=\"{name}\"{end}{end}{value}{end}")
            };
            let others = others.iter().map(|(name, value)| part(&format!("x{name}"), value)).collect::<String>();
            let click = part("List-Unsubscribe", "One-Click");
            let parts = if after { click + &others } else { others + &click };
            let body = format!("{preamble}{end}{parts}--{boundary}--{end}");
            prop_assert_eq!(Form::read(&kind, body.as_bytes()), one_click(), "{} {}", kind, body);
        }

        #[test]
        fn a_body_of_any_size_is_read_in_a_time_that_grows_with_it(unit in "(--b|\r\n|;|=|&|%|\"|a){1,4}", times in 0..4_000_usize) {
            let body = unit.repeat(times);
            Form::read("multipart/form-data; boundary=b", body.as_bytes());
            Form::read(URLENCODED, body.as_bytes());
            Form::read(&body, b"--b\n\n");
        }

        #[test]
        fn no_multipart_body_is_too_odd(body in "(--b|\r\n|\n|: |;|=|\"|name|Content-Disposition|x){0,30}") {
            Form::read("multipart/form-data; boundary=b", body.as_bytes());
            Form::read("multipart/form-data", body.as_bytes());
            Form::read(&body, body.as_bytes());
        }
    }
}

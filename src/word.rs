//! Enums whose values are words of the API and of the database: one list gives each its word, and reads it back.

/// A word that is none of those expected; the text names it and them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownWord(pub(crate) String);

/// Gives an enum its words: `ALL`, `as_str`, `Display` and `FromStr`. The text after the type says what an unknown word is
/// not, and which there are.
macro_rules! words {
    ($name:ident, $expected:literal, $($value:ident = $word:literal),+ $(,)?) => {
        impl $name {
            /// Every one.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$value),+];

            /// The word used in the API and in the database.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::word::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.into_iter().find(|value| value.as_str() == text);
                found.ok_or_else(|| $crate::word::UnknownWord(format!("{text:?} is no {}", $expected)))
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    use serde::Serialize;

    /// The derives of serde spell the words a second time.
    fn agree<T: Copy + Serialize + std::fmt::Display + std::str::FromStr + PartialEq>(all: &[T]) {
        for value in all {
            assert_eq!(serde_json::to_value(value).unwrap(), value.to_string());
            assert!(value.to_string().parse::<T>().is_ok_and(|read| read == *value));
        }
    }

    #[test]
    fn the_api_and_the_database_use_the_same_words() {
        agree(&crate::decision::Class::ALL);
        agree(&crate::decision::Standing::ALL);
        agree(&crate::opt_out::Channel::ALL);
        agree(&crate::notice::evidence::Kind::ALL);
        agree(&crate::delivery::State::ALL);
        agree(&crate::campaign::State::ALL);
        agree(&crate::policy::Change::ALL);
        agree(&crate::policy::Approval::ALL);
        agree(&crate::policy::State::ALL);
        agree(&crate::policy::OnSilence::ALL);
        agree(&crate::policy::OnUntold::ALL);
        agree(&crate::web::Role::ALL);
    }
}

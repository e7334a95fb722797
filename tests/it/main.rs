//! The integration tests: whole journeys over real HTTP and real SMTP, on both databases, in one binary.

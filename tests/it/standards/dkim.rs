//! DKIM, SPF and DMARC alignment (D).

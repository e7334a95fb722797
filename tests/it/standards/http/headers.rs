//! H1, H5, H9, H10: headers, methods, and what is served beside the pages.

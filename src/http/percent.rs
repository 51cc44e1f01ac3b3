//! Ids in paths: those of models hold slashes, so they come percent-encoded or not at all.

/// A path's text with its percent-encoding undone; what is not valid stays as it is.
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after
            .get(..2)
            .and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match (byte, hex) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::percent_decoded;

    #[test]
    fn what_is_encoded_is_undone_once_and_what_is_not_valid_stays() {
        assert_eq!(percent_decoded("llm%2Fhouse%2fv1"), "llm/house/v1");
        assert_eq!(percent_decoded("a%252Fb"), "a%2Fb");
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%zz%2"), "%zz%2");
    }
}

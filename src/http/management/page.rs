//! Pages of lists: all of them are asked for one more than they show, to see whether there is more.

/// The page out of what was found, which is one more than `limit` where there is more; and then where the next page begins,
/// as `cursor` says of the last one of this.
pub fn page<T, C>(mut found: Vec<T>, limit: u64, cursor: impl FnOnce(&T) -> C) -> (Vec<T>, Option<C>) {
    let more = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = found.last().filter(|_| more).map(cursor);
    (found, next)
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn a_page_says_where_the_next_one_begins_only_if_there_is_one() {
        assert_eq!(page(vec![1, 2, 3], 2, |last| last * 10), (vec![1, 2], Some(20)));
        assert_eq!(page(vec![1, 2], 2, |last| last * 10), (vec![1, 2], None));
        assert_eq!(page(Vec::<i32>::new(), 2, |last| last * 10), (vec![], None));
    }
}

//! Pages of lists: as many elements as were asked for, and no more bytes than an answer may have.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use prost::Message;

use crate::domain::page::{MAX_PAGE_BYTES, Page};

/// The messages of a page, and the token of the next one: the key of the last element of this one. Elements
/// whose messages do not fit in are the next page's.
pub(super) fn page<T, M: Message>(
    page: &Page<T>,
    key: impl Fn(&T) -> String,
    message: impl Fn(&T) -> M,
) -> (Vec<M>, String) {
    let messages = first_of(page.rows.iter().map(message));
    let is_cut = messages.len() < page.rows.len();
    let last = messages.len().checked_sub(1).and_then(|last| page.rows.get(last));
    let token = match last {
        Some(last) if is_cut || page.more => BASE64_URL_SAFE_NO_PAD.encode(key(last)),
        _ => String::new(),
    };
    (messages, token)
}

/// As many of the messages as fit into an answer, and one at least.
pub(super) fn first_of<M: Message>(messages: impl Iterator<Item = M>) -> Vec<M> {
    let mut bytes = 0;
    let mut first = Vec::new();
    for message in messages {
        bytes += message.encoded_len();
        if bytes > MAX_PAGE_BYTES && !first.is_empty() {
            break;
        }
        first.push(message);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::pb;

    fn pages(sizes: &[usize], limit: usize) -> Vec<Vec<usize>> {
        let mut pages = Vec::new();
        let mut from = 0;
        loop {
            let rows: Vec<_> = sizes.iter().copied().enumerate().skip(from).take(limit).collect();
            let more = rows.len() == limit;
            let message = |(_, size): &(usize, usize)| pb::Pool {
                pool_id: "x".repeat(*size),
                ..Default::default()
            };
            let key = |(n, _): &(usize, usize)| n.to_string();
            let (found, token) = page(&Page { rows, more }, key, message);
            pages.push(found.iter().map(|pool| pool.pool_id.len()).collect());
            if token.is_empty() {
                return pages;
            }
            let last = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap();
            from = String::from_utf8(last).unwrap().parse::<usize>().unwrap() + 1;
        }
    }

    #[test]
    fn a_page_ends_before_what_would_make_it_too_large_and_the_next_one_goes_on_there() {
        let large = MAX_PAGE_BYTES / 3;
        assert_eq!(pages(&[1, 2, 3], 10), [vec![1, 2, 3]]);
        assert_eq!(pages(&[1, 2, 3], 2), [vec![1, 2], vec![3]]);
        assert_eq!(pages(&[large; 5], 10), [vec![large; 2], vec![large; 2], vec![large]]);
        let huge = MAX_PAGE_BYTES * 2;
        assert_eq!(pages(&[huge, 1, huge], 10), [vec![huge], vec![1], vec![huge]], "one at least");
        assert_eq!(pages(&[], 10), [Vec::<usize>::new()]);
    }
}

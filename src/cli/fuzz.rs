//! What is fuzzed of commands: the files of accounts and of cards.

use std::{
    collections::HashSet,
    fmt::Write as _,
    io::{self, Read},
};

use secrecy::ExposeSecret as _;

use super::{
    account::import,
    batch,
    shared::{
        csv_files::{AccountRow, Amounts, BadRow, CardRow, CsvFile, Options, Row},
        output,
    },
};
use crate::{
    domain::{
        account::LoginStatus,
        id::{ItemId, PoolId},
        money::Currency,
    },
    rpc::fuzz::is_taken,
};

/// Part of an example that rules have: 1.23457E+15.
const EXAMPLE: &[u8] = b"23457E";

/// Reads the input as a file of accounts. What is taken is what the server takes.
pub(crate) fn account_csv(input: &[u8]) {
    let mut seen = HashSet::new();
    for row in rows(input, shown_account) {
        assert!(seen.insert((row.pool_id.clone(), row.account_id.clone())), "an account twice");
        let again = reread::<AccountRow>(&account_file(&row));
        assert_eq!(shown_account(&row), shown_account(&again), "written down it is another");
        let pool = PoolId::parse("pool").expect("a pool");
        let message = import::message(row, &pool, "EUR");
        assert!(is_taken(None, Some(message.clone())), "the server refuses {message:?}");
    }
}

/// Reads the input as a file of cards. What is taken is what the server takes.
pub(crate) fn batch_csv(input: &[u8]) {
    let mut seen = HashSet::new();
    for row in rows(input, shown_card) {
        let code = row.code.normalised().expose_secret().to_owned();
        assert!(seen.insert((row.pool_id.clone(), code)), "a card twice");
        let name = ItemId::parse("made").expect("a name");
        let name = row.item_id.as_ref().unwrap_or(&name);
        let again = reread::<CardRow>(&card_file(&row));
        assert_eq!(shown_card(&row), shown_card(&again), "written down it is another");
        assert!(is_taken(Some(batch::item(name, &row, "EUR")), None), "the server refuses {row:?}");
    }
}

/// The rows that can be read. What is told of the others must not repeat them; and it does not matter how much of the
/// file is read at once.
fn rows<T: Row>(input: &[u8], shown: fn(&T) -> String) -> Vec<T> {
    let told = |row: &Result<T, BadRow>| match row {
        Ok(row) => shown(row),
        Err(bad) => bad.to_string(),
    };
    let options = Options::default();
    let (Ok(whole), Ok(in_bits)) =
        (CsvFile::<_, T>::new(input, &options), CsvFile::<_, T>::new(Bits(input), &options))
    else {
        return Vec::new();
    };
    // What is told is in UTF-8.
    let decoded = decoded(input);
    let input = &*decoded;
    let in_header = words(
        input
            .split(|byte| matches!(byte, b'\n' | b'\r'))
            .find(|line| !line.trim_ascii().is_empty()),
    );
    let of_rows = &words(Some(input)) - &in_header;
    // Read otherwise, it may be taken or not: it is not repeated either.
    let major = Options {
        amounts: Some(Amounts::Major),
        currency: Currency::parse("EUR"),
        ignore_columns: true,
        ..Options::default()
    };
    if let Ok(file) = CsvFile::<_, T>::new(input, &major) {
        for bad in file.filter_map(|row| row.expect("memory").err()) {
            let repeated = words(Some(bad.to_string().as_bytes()));
            assert!(repeated.is_disjoint(&of_rows), "{bad} repeats its row");
        }
    }
    let in_bits: Vec<_> = in_bits.map(|row| told(&row.expect("memory"))).collect();
    let whole: Vec<_> = whole.map(|row| row.expect("memory")).collect();
    assert_eq!(whole.iter().map(told).collect::<Vec<_>>(), in_bits, "it is read otherwise in bits");
    let read = whole.into_iter().filter_map(|row| {
        if let Err(bad) = &row {
            let repeated: Vec<_> = words(Some(bad.to_string().as_bytes()))
                .intersection(&of_rows)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            assert!(repeated.is_empty(), "{bad} repeats {repeated:?}");
        }
        row.ok()
    });
    read.collect()
}

/// Input that comes seven bytes at a time.
struct Bits<'a>(&'a [u8]);

impl Read for Bits<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(7);
        self.0.read(&mut buffer[..most])
    }
}

/// The input in UTF-8, if it is in UTF-16.
fn decoded(input: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut reader =
        encoding_rs_io::DecodeReaderBytesBuilder::new().utf8_passthru(true).build(input);
    reader.read_to_end(&mut text).expect("memory");
    text
}

/// Words that may be a code: of six letters and digits at least, with both.
fn words(text: Option<&[u8]>) -> HashSet<Vec<u8>> {
    let words = text.unwrap_or_default().split(|byte| !byte.is_ascii_alphanumeric());
    let may_be_code = |word: &&[u8]| {
        word.len() >= 6
            && word.iter().any(u8::is_ascii_digit)
            && word.iter().any(u8::is_ascii_alphabetic)
            && *word != EXAMPLE
    };
    words.filter(may_be_code).map(<[u8]>::to_vec).collect()
}

/// The one row of a file.
fn reread<T: Row>(file: &str) -> T {
    let mut rows = CsvFile::<_, T>::new(file.as_bytes(), &Options::default()).expect("a header");
    match rows.next().expect("a row").expect("memory") {
        Ok(row) => row,
        Err(bad) => panic!("written down it is refused: {bad}"),
    }
}

fn account_file(row: &AccountRow) -> String {
    let mut header =
        "pool_id,account_id,country_code,plan_id,balance_minor,login_status,labels".to_owned();
    let login = match row.login_status {
        LoginStatus::Active => "ACTIVE",
        LoginStatus::Inactive => "INACTIVE",
        LoginStatus::Invalid => "INVALID",
    };
    let labels: Vec<_> = row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut line = [
        row.pool_id.as_ref().map_or("", PoolId::as_str),
        row.account_id.as_str(),
        row.country_code.as_deref().unwrap_or_default(),
        row.plan_id.as_ref().map_or("", |plan| plan.as_str()),
        &row.balance_minor.to_string(),
        login,
        &labels.join(";"),
    ]
    .map(exported)
    .join(",");
    for (name, value) in row.credentials.expose() {
        let _ = write!(header, ",credential.{name}");
        let _ = write!(line, ",{}", quoted(value));
    }
    format!("{header}\n{line}\n")
}

fn card_file(row: &CardRow) -> String {
    let line = [
        exported(row.pool_id.as_ref().map_or("", PoolId::as_str)),
        exported(row.item_id.as_ref().map_or("", |name| name.as_str())),
        quoted(row.code.expose()),
        quoted(&row.amount_minor.map(|amount| amount.to_string()).unwrap_or_default()),
        quoted(row.currency.as_ref().map_or("", |currency| currency.as_str())),
    ];
    format!("pool_id,item_id,code,amount_minor,currency_code\n{}\n", line.join(","))
}

/// A field as it is exported.
fn exported(field: &str) -> String {
    quoted(&output::defused(field.to_owned()))
}

fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

fn shown_account(row: &AccountRow) -> String {
    let mut labels: Vec<_> = row.labels.iter().collect();
    labels.sort_unstable();
    let mut credentials: Vec<_> = row.credentials.expose().collect();
    credentials.sort_unstable();
    let AccountRow {
        pool_id, account_id, country_code, plan_id, balance_minor, login_status, ..
    } = row;
    let row = (pool_id, account_id, country_code, plan_id, balance_minor, login_status);
    format!("{row:?} {labels:?} {credentials:?}")
}

fn shown_card(row: &CardRow) -> String {
    // It is written on another line.
    let row = CardRow {
        line: 0,
        code: row.code.clone(),
        pool_id: row.pool_id.clone(),
        item_id: row.item_id.clone(),
        ..*row
    };
    format!("{row:?} {}", row.code.expose())
}

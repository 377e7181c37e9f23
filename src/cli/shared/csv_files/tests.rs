//! Whole files, read to their end.

use super::*;
use crate::domain::{id::ItemId, money::Currency};

fn header_error(text: &[u8]) -> String {
    match CsvFile::<_, CardRow>::new(text, &Options::default()) {
        Ok(_) => panic!("a header was expected to be refused"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn a_header_is_required_and_its_columns_are_known() {
    assert!(header_error(b"").contains("empty"));
    assert!(header_error(b"code,colour,size\n").contains("\"colour\", \"size\""));
    assert!(header_error(b"item_id\n").contains("no column \"code\""));
    assert!(header_error(b"code,code\n").contains("twice"));
    assert!(header_error(b"co\xffde\n").contains("UTF-8"));
}

#[test]
fn a_header_that_is_no_header_is_not_repeated_in_full() {
    // Somebody forgot the header: the first line is a card.
    let error = header_error(b"ABCD-EFGH-1234\n");
    assert!(!error.contains("ABCD-EFGH-1234"), "{error}");
}

#[test]
fn columns_come_in_any_order_and_a_bom_is_fine() {
    let rows = read_all::<CardRow>("\u{feff}amount_minor, code\r\n500,ABCD1\r\n\r\n700,ABCD2");
    let lines: Vec<_> = rows.into_iter().map(|row| row.unwrap().line).collect();
    assert_eq!(lines, [2, 4]);
}

#[test]
fn a_row_with_another_number_of_columns_is_named_and_the_next_one_is_read() {
    let rows = read_all::<CardRow>("code,amount_minor\nABCD1\nABCD2,1,2\nABCD3,1\n");
    assert_eq!(rows[0].as_ref().unwrap_err(), "line 2: has 1 column where the header has 2");
    assert_eq!(rows[1].as_ref().unwrap_err(), "line 3: has 3 columns where the header has 2");
    assert!(rows[2].is_ok());
}

#[test]
fn a_quote_left_open_spoils_one_row_only() {
    let rows = read_all::<CardRow>("code,item_id\n\"ABCD1,a\nABCD2,b\n\"ABCD3\",\"c,d\"\n");
    assert_eq!(rows[0].as_ref().unwrap_err(), "line 2: has a quote that is not closed");
    assert_eq!(rows[1].as_ref().unwrap().item_id, ItemId::parse("b").ok());
    assert_eq!(rows[2].as_ref().unwrap().item_id, ItemId::parse("c,d").ok());
}

#[test]
fn a_quote_in_the_middle_of_a_field_spoils_its_row() {
    for bad in ["\"X-0041\"x", "QQ\"\"Q-0042", "A-\"B\"-123", " \"ABCD1\"", "\"A\" \"B-12\""] {
        let rows = read_all::<CardRow>(format!("code,item_id\n{bad},a\nABCD2,b\n"));
        let why = rows[0].as_ref().unwrap_err();
        assert!(why.starts_with("line 2: has a quote in the middle of a field"), "{bad}: {why}");
        assert!(rows[1].is_ok());
    }
    for (text, code) in [
        ("\"ABCD1\"", "ABCD1"),
        ("\"ABCD1\" ", "ABCD1"),
        ("\"AB\"\"CD1\"", "AB\"CD1"),
        ("\"\"\"ABCD1\"\"\"", "\"ABCD1\""),
    ] {
        let rows = read_all::<CardRow>(format!("code,item_id\n{text},\"\"\n"));
        assert_eq!(rows[0].as_ref().unwrap().code.expose(), code, "{text}");
    }
}

#[test]
fn a_row_with_another_separator_is_a_bad_row_that_names_it() {
    for (header, bad, mark) in [
        ("code", "ABCD-1;1000", "semicolons"),
        ("code", "ABCD-1\t1000", "tabs"),
        ("code,amount_minor", "ABCD-1;1000", "semicolons"),
        ("code,amount_minor", "ABCD-1\t1000", "tabs"),
    ] {
        let why = read_all::<CardRow>(format!("{header}\n{bad}\n")).remove(0).unwrap_err();
        let hint = format!(": is it separated by {mark}, and the header by commas?");
        assert!(why.starts_with("line 2: has ") && why.ends_with(&hint), "{why}");
        assert!(!why.contains("ABCD"), "{why}");
    }
    for taken in ["code\n\"AB;CD-1\"\n", "code,item_id\nAB;CD-1,a\n"] {
        assert!(read_all::<CardRow>(taken)[0].is_ok(), "{taken}");
    }
}

#[test]
fn bytes_that_are_not_text_are_named_by_their_column() {
    let rows = read_all::<CardRow>(b"code,item_id\nAB\xffCD,a\nABCD2,\x1bb\nABC\x00D,c\n");
    assert_eq!(
        rows[0].as_ref().unwrap_err(),
        "line 2: code is not UTF-8: save the file as CSV UTF-8"
    );
    assert_eq!(rows[1].as_ref().unwrap_err(), "line 3: item_id has a control character");
    assert_eq!(rows[2].as_ref().unwrap_err(), "line 4: code has a NUL byte");
}

#[test]
fn columns_without_a_name_are_fine_while_nothing_is_in_them() {
    let rows =
        read_all::<CardRow>("code,amount_minor,,\nABCD-1,1000,,\nABCD-2,1000, ,x\nABCD-3,1000,,\n");
    assert!(rows[0].is_ok() && rows[2].is_ok(), "{rows:?}");
    let why = rows[1].as_ref().unwrap_err();
    assert!(why.starts_with("line 3: has something in a column without a name"), "{why}");
    let options = Options { ignore_columns: true, ..Options::default() };
    assert!(read_with::<CardRow>("code,\nABCD-1,x\n", &options)[0].is_ok());
}

#[test]
fn bars_between_columns_are_seen_by_the_header_and_stay_part_of_a_code() {
    let rows = read_all::<CardRow>("code|amount_minor\nABCD-1|1000\n");
    assert!(rows[0].is_ok(), "{rows:?}");
    assert!(read_all::<CardRow>("code\nABCD|1234\n")[0].is_ok());
}

#[test]
fn what_is_no_csv_is_told_as_what_it_is() {
    let refused = |text: &[u8]| {
        let error = CsvFile::<_, CardRow>::new(text, &Options::default()).err().unwrap();
        format!("{error:#}")
    };
    for (text, words) in [
        (&b"<!DOCTYPE html><html>"[..], "a web page"),
        (b"<html>\n", "a web page"),
        (b"[{\"code\":\"ABCD-1\"}]\n", "JSON"),
        (b"{\"code\":\"ABCD-1\"}\n", "JSON"),
        (&[0; 100_000], "NUL bytes"),
        (b"na\xefve,code\n", "save the file as CSV UTF-8"),
        (&[b'x'; 100_000], "is it a CSV file"),
    ] {
        let told = refused(text);
        assert!(told.contains(words) && !told.contains("ABCD"), "{told}");
    }
}

#[test]
fn what_was_exported_is_read_back() {
    let text = "account_id,labels,plan_id\n'=A1,'-k=v,'-plan\n'+49,,\n''@x,,\n";
    let rows: Vec<_> = read_all::<AccountRow>(text).into_iter().map(Result::unwrap).collect();
    let ids: Vec<_> = rows.iter().map(|row| row.account_id.as_str()).collect();
    assert_eq!(ids, ["=A1", "+49", "'@x"]);
    assert_eq!(rows[0].labels["-k"], "v");
    assert_eq!(rows[0].plan_id.as_ref().unwrap().as_str(), "-plan");
}

#[test]
fn an_endless_line_is_named_and_the_next_one_is_read() {
    let text = format!("code\n{}\nABCD2\n", "x".repeat(MAX_LINE_BYTES + 1));
    let rows = read_all::<CardRow>(text);
    assert_eq!(rows[0].as_ref().unwrap_err(), "line 2: is longer than 65536 bytes");
    assert_eq!(rows[1].as_ref().unwrap().line, 3);
}

#[test]
fn a_bad_row_tells_its_pool_when_it_can() {
    let text = &b"code,pool_id\nx,p\nABCD,a b\n"[..];
    let mut file = CsvFile::<_, CardRow>::new(text, &Options::default()).unwrap();
    let bad = file.next().unwrap().unwrap().unwrap_err();
    assert_eq!(bad.pool_id.map(|pool| pool.to_string()), Some("p".to_owned()));
    let bad = file.next().unwrap().unwrap().unwrap_err();
    assert_eq!((bad.pool_id, bad.problems[0].column.as_deref()), (None, Some("pool_id")));
}

#[test]
fn names_are_unique_in_a_pool() {
    let mut seen = Seen::default();
    let pool = PoolId::parse("p").unwrap();
    assert_eq!(seen.before(None, "a", 2), None);
    assert_eq!(seen.before(Some(&pool), "a", 3), None);
    assert_eq!(seen.before(Some(&pool), "a", 4), Some(3));
}

#[test]
fn rows_end_with_lf_crlf_or_cr_also_in_one_file() {
    let files = [
        "code,amount_minor\nAAAA-1,1000\rBBBB-2,1000\n",
        "code,amount_minor\rAAAA-1,1000\rBBBB-2,1000\r",
        "code,amount_minor\r\nAAAA-1,1000\r\nBBBB-2,1000",
        "code,amount_minor\rAAAA-1,1000\nBBBB-2,1000\r\n",
    ];
    for file in files {
        let rows = read_all::<CardRow>(file).into_iter().map(Result::unwrap);
        let lines: Vec<_> = rows.map(|row| row.line).collect();
        assert_eq!(lines, [2, 3], "{file:?}");
    }
}

#[test]
fn a_header_in_the_middle_of_a_file_is_a_bad_row_and_the_rows_after_it_are_read() {
    for again in
        ["account_id,country_code", "\u{feff}account_id,country_code", " ACCOUNT_ID , Country_Code"]
    {
        let rows =
            read_all::<AccountRow>(format!("account_id,country_code\na,DE\n{again}\nb,DE\n"));
        let why = rows[1].as_ref().unwrap_err();
        assert!(why.starts_with("line 3: repeats the header"), "{why}");
        assert_eq!(rows[2].as_ref().unwrap().account_id.as_str(), "b");
    }
    let rows = read_all::<AccountRow>("account_id\na\naccount_id\nlabels\n");
    assert!(rows[1].is_err() && rows[2].is_ok());
}

#[test]
fn after_a_header_with_other_columns_no_row_is_read() {
    for again in ["amount_minor,code", "item_id,code,amount_minor", "code"] {
        let rows = read_all::<CardRow>(format!("code,amount_minor\nABCD1,5\n{again}\n1234,5678\n"));
        assert!(rows[0].is_ok());
        let why = rows[1].as_ref().unwrap_err();
        assert!(why.starts_with("line 3: is a second header, with other columns"), "{why}");
        let why = rows[2].as_ref().unwrap_err();
        assert!(why.starts_with("line 4: comes after the second header on line 3"), "{why}");
    }
}

#[test]
fn files_that_were_joined_without_a_line_end_between_them_are_found_out() {
    let file = "account_id\na\nb\u{feff}account_id\nc\n";
    assert!(read_all::<AccountRow>(file)[1].as_ref().unwrap_err().contains("joined"));
    let file = "account_id\na\nbaccount_id\nc\n";
    assert!(read_all::<AccountRow>(file)[1].as_ref().unwrap_err().contains("joined"));
    let file = "account_id\na\u{feff}b\n";
    assert!(read_all::<AccountRow>(file)[0].as_ref().unwrap_err().contains("byte order mark"));
    let file = "code,amount_minor\nABCD1,5code,amount_minor\nABCD2,5\n";
    let rows = read_all::<CardRow>(file);
    assert!(rows[0].as_ref().unwrap_err().contains("joined") && rows[1].is_ok());
    let rows = read_all::<CardRow>("code\nABCD1code\nbarcode\n");
    assert!(rows[0].as_ref().unwrap_err().contains("joined"));
    assert!(rows[1].is_ok(), "a code that may be one");
}

#[test]
fn a_file_that_is_not_utf_8_text_is_refused_with_what_it_is() {
    assert!(header_error(b"c\0o\0d\0e\0\n\0").contains("NUL"));
    assert!(header_error(b"PK\x03\x04\x14\0").contains("export the sheet as CSV"));
}

fn utf_16(text: &str, to: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(to).collect()
}

#[test]
fn separators_are_found_and_may_be_named() {
    for text in [
        "code,amount_minor\nABCD1,5\n",
        "code;amount_minor\nABCD1;5\n",
        "code\tamount_minor\nABCD1\t5\n",
        "\u{feff}code;amount_minor\r\nABCD1;5\r\n",
        "sep=;\ncode;amount_minor\nABCD1;5\n",
        "\u{feff}\"sep=;\"\r\ncode;amount_minor\r\nABCD1;5\r\n",
        "SEP=\t\ncode\tamount_minor\n\"ABCD1\"\t 5 \n",
        "sep=|\ncode|amount_minor\nABCD1|5\n",
        "sep=,,\ncode,amount_minor\nABCD1,5\n",
    ] {
        let row = read_all::<CardRow>(text).remove(0);
        let row = row.unwrap_or_else(|why| panic!("{text:?}: {why}"));
        assert_eq!((row.code.expose(), row.amount_minor), ("ABCD1", Some(5)), "{text:?}");
    }
    let row = read_all::<AccountRow>("account_id;labels\na;\"k=v;l=w\"\n").remove(0).unwrap();
    assert_eq!(row.labels.len(), 2);
    let row = read_all::<CardRow>("code;item_id\n\"ABCD1\"\"x\";a,b\n").remove(0).unwrap();
    assert_eq!(row.item_id, ItemId::parse("a,b").ok());
    assert!(header_error(b"sep=x\ncode\n").contains("a separator that is none"));
}

#[test]
fn utf_16_is_read_and_what_is_lost_in_it_is_a_bad_row() {
    for to in [u16::to_le_bytes, u16::to_be_bytes] {
        let text = utf_16("account_id\tcountry_code\r\nkönig 🎁\tDE\r\n", to);
        let row = read_all::<AccountRow>(text).remove(0).unwrap();
        assert_eq!(row.account_id.as_str(), "könig 🎁");
    }
    let mut half = utf_16("account_id\nab\n", u16::to_le_bytes);
    // Half of a pair, in place of the b.
    let at = half.len() - 4;
    half[at..at + 2].copy_from_slice(&0xd800_u16.to_le_bytes());
    let why = read_all::<AccountRow>(half).remove(0).unwrap_err();
    assert!(why.starts_with("line 2: account_id has a character that was lost"), "{why}");
}

#[test]
fn headers_are_read_in_any_case_and_with_spaces() {
    for header in ["Code,Amount_Minor", " CODE , AMOUNT MINOR ", "code,amount-minor"] {
        let row = read_all::<CardRow>(format!("{header}\nABCD1,5\n")).remove(0).unwrap();
        assert_eq!(row.amount_minor, Some(5), "{header}");
    }
}

#[test]
fn other_headers_are_mapped_or_left_out_and_all_that_is_wrong_is_named_at_once() {
    let map = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    };
    let options =
        |pairs, ignore_columns| Options { map: map(pairs), ignore_columns, ..Options::default() };
    let text = "Card Number;Betrag;shop\nABCD1;5;x\ncard_number;betrag;shop\nABCD2;6;y\n";
    let pairs = [("card number", "code"), ("BETRAG", "Amount Minor")];
    let rows = read_with::<CardRow>(text, &options(&pairs, true));
    assert_eq!(rows[0].as_ref().unwrap().amount_minor, Some(5));
    assert!(rows[1].as_ref().unwrap_err().contains("repeats the header"));
    assert_eq!(rows[2].as_ref().unwrap().code.expose(), "ABCD2");
    // What a file calls code is something else.
    let rows = read_with::<CardRow>(
        "code,card\nx,ABCD1\n",
        &options(&[("card", "code"), ("code", "item_id")], false),
    );
    assert_eq!(rows[0].as_ref().unwrap().item_id, ItemId::parse("x").ok());

    let error = |text: &str, options: &Options| {
        let file = CsvFile::<_, CardRow>::new(text.as_bytes(), options);
        format!("{:#}", file.err().unwrap())
    };
    let why = error(
        "number,code,colour,code\n",
        &options(&[("number", "kode"), ("none", "code"), ("colour", "code")], false),
    );
    for part in [
        "--map number=kode: there is no such column",
        "--map none=code: the file has no such header",
        "the column \"code\" is there twice",
        "unknown columns \"number\"",
        "--ignore-columns",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let why = error("item_id,card\n", &options(&[], true));
    assert!(why.contains("`--map HEADER=code`"), "{why}");
}

#[test]
fn amounts_are_not_left_out_and_columns_that_are_get_named() {
    let left_out = Options { ignore_columns: true, ..Options::default() };
    let open = |text: &'static str, options: &Options| {
        CsvFile::<_, CardRow>::new(text.as_bytes(), options)
    };
    let why = format!("{:#}", open("code,Amount\n", &left_out).err().unwrap());
    assert!(why.contains("of the column \"Amount\" it is not told what it is in"), "{why}");
    let map = vec![("amount".to_owned(), "amount_minor".to_owned())];
    let mapped = Options { map, ..left_out.clone() };
    assert_eq!(open("code,Amount\n", &mapped).unwrap().left_out(), None);
    let told = open("code,colour,Shop Name\n", &left_out).unwrap().left_out();
    assert_eq!(told.unwrap(), "columns that are left out: \"colour\", \"Shop Name\"");
    let why = CsvFile::<_, AccountRow>::new(&b"account_id,balance\n"[..], &left_out).err().unwrap();
    assert!(format!("{why:#}").contains("it is not told what it is in"), "{why:#}");
}

#[test]
fn rows_of_nothing_are_left_out_and_counted() {
    let text = "code,item_id\n\n,\nABCD1,a\n\"\", \n   \nABCD2,b\n";
    let mut file = CsvFile::<_, CardRow>::new(text.as_bytes(), &Options::default()).unwrap();
    assert!(file.by_ref().all(|row| row.unwrap().is_ok()));
    assert_eq!(file.blank_rows(), 4);
}

#[test]
fn amounts_are_in_major_units_where_that_was_said() {
    let options =
        |amounts| Options { currency: Currency::parse("EUR"), amounts, ..Options::default() };
    let text = "code;amount;currency_code\nABCD1;€10,00;\nABCD2;10.5;\nABCD3;1500;JPY\n";
    let rows = read_with::<CardRow>(text, &options(Some(Amounts::Major)));
    assert_eq!(rows[0].as_ref().unwrap().amount_minor, Some(1000));
    let why = rows[1].as_ref().unwrap_err();
    assert!(why.starts_with("line 3: amount_minor must have 2 digits after"), "{why}");
    assert_eq!(rows[2].as_ref().unwrap().amount_minor, Some(1500));
    let rows = read_with::<CardRow>("code,amount\nABCD1,10.00\n", &options(Some(Amounts::Minor)));
    assert!(rows[0].as_ref().unwrap_err().contains("--amounts major reads"), "{rows:?}");
    let rows =
        read_with::<AccountRow>("account_id,balance\na,0.00\n", &options(Some(Amounts::Major)));
    assert_eq!(rows[0].as_ref().unwrap().balance_minor, 0);
    assert!(header_error(b"code,amount\n").contains("say --amounts major"));
}

#[test]
fn names_that_look_like_others_are_bad_rows() {
    for text in ["an\u{200b}na", "a\u{308}nna", "anna\u{a0}b", "\u{202e}anna"] {
        let why = read_all::<AccountRow>(format!("account_id\n{text}\n")).remove(0).unwrap_err();
        assert!(why.contains("account_id must"), "{why}");
        let why = read_all::<AccountRow>(format!("account_id,labels\na,k={text}\n")).remove(0);
        assert!(why.as_ref().unwrap_err().contains("labels must"), "{why:?}");
    }
}

#[test]
fn texts_that_a_spreadsheet_damaged_are_bad_rows_with_a_hint_and_are_not_repeated() {
    for text in
        ["1.23457E+15", "\"1,23457E+15\"", "=\"0012\"", "\"=\"\"0012\"\"\"", "#N/A", "#REF!"]
    {
        for column in ["code", "item_id"] {
            let other = if column == "code" { "item_id" } else { "code" };
            let rows = read_all::<CardRow>(format!("{column},{other}\n{text},ABCD-1\n"));
            let why = rows[0].as_ref().unwrap_err();
            assert!(why.starts_with(&format!("line 2: {column} is ")), "{why}");
            assert!(why.contains("export") && !why.contains("0012"), "{why}");
        }
        let rows = read_all::<AccountRow>(format!("account_id\n{text}\n"));
        let why = rows[0].as_ref().unwrap_err();
        assert!(why.starts_with("line 2: account_id is "), "{why}");
    }
    let why = read_all::<CardRow>("code\n9.87654E+11\n").remove(0).unwrap_err();
    assert!(!why.contains("9.8"), "{why}");
}

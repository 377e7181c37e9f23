//! Account files: `account_id,country_code,plan_id,balance_minor,login_status,labels`, and a column
//! `credential.NAME` for each credential. Only `account_id` is required.

use std::collections::HashMap;

use super::{Row, Seen, damage, fields, fields::Fields};
use crate::{
    cli::shared::parse::country,
    domain::{
        account::LoginStatus,
        credentials::{Credentials, Fault},
        id::{AccountId, PlanId, PoolId},
        text::looks_like_another,
    },
};

/// The most labels that an account may carry.
const MAX_LABELS: usize = 32;
/// The longest key of a label, in characters.
const MAX_LABEL_KEY: usize = 63;
/// The longest value of a label, in characters.
const MAX_LABEL_VALUE: usize = 256;

/// An account to create.
#[derive(Debug)]
pub(crate) struct AccountRow {
    /// The row's line.
    pub(crate) line: u64,
    /// The pool that it is for; `None`: the command's.
    pub(crate) pool_id: Option<PoolId>,
    /// The account.
    pub(crate) account_id: AccountId,
    /// Two upper-case letters, or none.
    pub(crate) country_code: Option<String>,
    /// What it is being filled for; `None`: any plan may bind it.
    pub(crate) plan_id: Option<PlanId>,
    /// What is in it, in the pool's minor units.
    pub(crate) balance_minor: i64,
    /// Whether the provider lets it in.
    pub(crate) login_status: LoginStatus,
    /// Free for selectors.
    pub(crate) labels: HashMap<String, String>,
    /// What the provider asks of it.
    pub(crate) credentials: Credentials,
}

impl Row for AccountRow {
    const COLUMNS: &'static [&'static str] =
        &["account_id", "country_code", "plan_id", "balance_minor", "login_status", "labels"];
    const PREFIX: Option<&'static str> = Some("credential.");
    const AMOUNT: (&'static str, &'static str) = ("balance", "balance_minor");
    const REQUIRED: &'static str = "account_id";

    fn read(fields: &mut Fields<'_>, seen: &mut Seen) -> Option<Self> {
        let account_id =
            fields.required("account_id", |text| damage::name(text).and_then(AccountId::parse));
        if let Some(first) = account_id
            .as_ref()
            .and_then(|id| seen.before(fields.pool_id(), id.as_str(), fields.line()))
        {
            fields.complain(Some("account_id"), format!("is the same as on line {first}"));
        }
        let country_code = fields.optional("country_code", country);
        let plan_id = fields.optional("plan_id", |text| PlanId::parse(fields::undefused(text)));
        let balance_minor = fields.amount("balance_minor", None, 0);
        let login_status = fields.optional("login_status", |text| {
            LoginStatus::parse(text).ok_or("must be ACTIVE, INACTIVE or INVALID")
        });
        let labels = fields.optional("labels", labels);
        let credentials = credentials(fields);
        Some(Self {
            line: fields.line(),
            pool_id: fields.pool_id().cloned(),
            account_id: account_id?,
            country_code,
            plan_id,
            balance_minor: balance_minor.unwrap_or(0),
            login_status: login_status.unwrap_or(LoginStatus::Active),
            labels: labels.unwrap_or_default(),
            credentials: credentials?,
        })
    }
}

/// Reads `k=v;k=v`. A value may hold `=`, and may be empty.
fn labels(text: &str) -> Result<HashMap<String, String>, String> {
    let mut labels = HashMap::new();
    for pair in fields::undefused(text).split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("must be written as key=value;key=value")?;
        let (key, value) = (key.trim(), value.trim());
        if !(1..=MAX_LABEL_KEY).contains(&key.chars().count()) {
            return Err(format!("must have keys of 1 to {MAX_LABEL_KEY} characters"));
        }
        if value.chars().count() > MAX_LABEL_VALUE {
            return Err(format!("must have values of at most {MAX_LABEL_VALUE} characters"));
        }
        if let Some(rule) = looks_like_another(key).or_else(|| looks_like_another(value)) {
            return Err(rule.to_owned());
        }
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err("must not name a key twice".to_owned());
        }
    }
    if labels.len() > MAX_LABELS {
        return Err(format!("must be at most {MAX_LABELS}"));
    }
    Ok(labels)
}

/// Reads the columns of credentials. An empty field is none.
fn credentials(fields: &mut Fields<'_>) -> Option<Credentials> {
    let given = fields.named(|name, text| {
        damage::check_code(text).map_err(|damage| damage.to_string())?;
        if text.trim() != text {
            return Err("begins or ends with a space: take it out, or set the credential with \
                `holdfast account update`"
                .to_owned());
        }
        // Each by itself, so that its column is named.
        let alone = Credentials::new([(name.to_owned(), text.into())].into());
        alone.map(|_| text.into()).map_err(|faults| rules(&faults))
    });
    let all = Credentials::new(given.into_iter().collect());
    all.map_err(|faults| fields.complain(None, format!("credentials {}", rules(&faults)))).ok()
}

fn rules(faults: &[Fault]) -> String {
    faults.iter().map(|fault| fault.rule).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{CsvFile, Options, read_all},
        *,
    };

    const ALL: &str = "account_id,country_code,plan_id,balance_minor,login_status,labels";

    fn one(row: &str) -> Result<AccountRow, String> {
        read_all::<AccountRow>(format!("{ALL}\n{row}\n")).remove(0)
    }

    #[test]
    fn only_the_account_is_required() {
        let account = read_all::<AccountRow>("account_id\nkonto 7\n").remove(0).unwrap();
        assert_eq!((account.account_id.as_str(), account.balance_minor), ("konto 7", 0));
        assert_eq!(account.login_status, LoginStatus::Active);
        assert!(account.labels.is_empty() && account.plan_id.is_none());
        assert_eq!(one(",DE,,,,").unwrap_err(), "line 2: account_id is required");
    }

    #[test]
    fn every_column_is_read() {
        let account = one("a,DE,starter,1200,INACTIVE,\"tier=gold; note=a=b;\"").unwrap();
        assert_eq!(account.country_code.as_deref(), Some("DE"));
        assert_eq!(account.plan_id, PlanId::parse("starter").ok());
        assert_eq!((account.balance_minor, account.login_status), (1200, LoginStatus::Inactive));
        assert_eq!(
            (account.labels["tier"].as_str(), account.labels["note"].as_str()),
            ("gold", "a=b")
        );
    }

    #[test]
    fn each_column_has_its_rule() {
        for (row, rule) in [
            ("a,de,,,,", "country_code must be two upper-case"),
            ("a,DEU,,,,", "country_code must be two upper-case"),
            ("a,,my plan,,,", "plan_id must be 1 to 128"),
            ("a,,,-1,,", "balance_minor must be a whole number of minor units, 0 to"),
            ("a,,,12.50,,", "balance_minor must be"),
            ("a,,,,active,", "login_status must be ACTIVE, INACTIVE or INVALID"),
            ("a,,,,,gold", "labels must be written as"),
            ("a,,,,,=x", "labels must have keys"),
            ("a,,,,,k=1;k=2", "labels must not name a key twice"),
        ] {
            let error = one(row).unwrap_err();
            assert!(error.starts_with(&format!("line 2: {rule}")), "{error}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
        assert!(one(&format!("a,,,,,{}", many.join(";"))).unwrap_err().contains("at most 32"));
        assert!(one(&format!("a,,,,,k={}", "v".repeat(257))).unwrap_err().contains("at most 256"));
    }

    fn credentials_of(row: &AccountRow) -> Vec<(&str, &str)> {
        row.credentials.expose().collect()
    }

    #[test]
    fn columns_of_credentials_are_read_as_they_are_written() {
        let text =
            "credential.pin,account_id,credential.User-1\n0012,a,\"x,\"\"y=;\"\n,b,\nZ,c,ü z\n";
        let rows: Vec<_> = read_all::<AccountRow>(text).into_iter().map(Result::unwrap).collect();
        assert_eq!(credentials_of(&rows[0]), [("User-1", "x,\"y=;"), ("pin", "0012")]);
        assert_eq!(credentials_of(&rows[1]), []);
        assert_eq!(credentials_of(&rows[2]), [("User-1", "ü z"), ("pin", "Z")]);
        assert!(!format!("{rows:?}").contains("0012"));
    }

    #[test]
    fn credentials_that_cannot_be_right_are_named_by_column_and_never_repeated() {
        let long = format!("S3C{}", "x".repeat(4096));
        for (value, rule) in [
            (" S3C", "begins or ends with a space"),
            ("S3C\u{a0}", "begins or ends with a space"),
            ("S3C\u{7f}", "has a control character"),
            (&long, "must be 1 to 4096 bytes"),
            ("1.23457E+15", "is a number that a spreadsheet shortened"),
            ("=S3C", "is a formula"),
            ("'S3C", "begins with an apostrophe"),
        ] {
            let text = format!("account_id,credential.a,credential.b\n,{value},{value}\n");
            let error = read_all::<AccountRow>(text).remove(0).unwrap_err();
            for column in ["account_id is required", "credential.a", "credential.b"] {
                assert!(error.contains(column), "{error}");
            }
            assert_eq!(error.matches(rule).count(), 2, "{error}");
            let alone = read_all::<AccountRow>("account_id,credential.a\nx,  \n").remove(0);
            assert!(alone.unwrap_err().contains("begins or ends with a space"));
            assert!(!error.contains("S3C") && !error.contains("1.23457E+15:"), "{error}");
        }
    }

    #[test]
    fn an_account_has_at_most_32_credentials() {
        let columns = (0..33).map(|n| format!(",credential.c{n}")).collect::<String>();
        let text = format!("account_id{columns}\na{}\nb{}x\n", ",x".repeat(33), ",".repeat(33));
        let rows = read_all::<AccountRow>(text);
        assert_eq!(rows[0].as_ref().unwrap_err(), "line 2: credentials must be at most 32");
        assert!(rows[1].is_ok());
    }

    #[test]
    fn headers_with_credentials_are_told_from_others() {
        let error = |header: &[u8]| match CsvFile::<_, AccountRow>::new(header, &Options::default())
        {
            Ok(_) => panic!("a header was expected to be refused"),
            Err(error) => format!("{error:#}"),
        };
        let why = error(b"account_id,credential.,credential.a b,Credential.c\n");
        assert!(why.contains("unknown columns \"credential.\", \"credential.a b\";"), "{why}");
        assert!(why.contains("labels, credential.NAME, pool_id"), "{why}");
        assert!(error(b"account_id,credential.a,credential.a\n").contains("twice"));
        assert!(error(b"credential.a\n").contains("no column \"account_id\""));
        for (again, why) in [
            ("ACCOUNT_ID,CREDENTIAL.PIN", "repeats the header"),
            ("account_id,credential.other", "is a second header"),
        ] {
            let text = format!("account_id,credential.pin\na,x\n{again}\n");
            let rows = read_all::<AccountRow>(text);
            assert!(rows[1].as_ref().unwrap_err().contains(why), "{:?}", rows[1]);
        }
        let text = "account_id,credential.pin\na,xaccount_id,credential.pin\n";
        assert!(read_all::<AccountRow>(text)[0].as_ref().unwrap_err().contains("joined"));
    }

    #[test]
    fn an_account_is_there_once_in_its_pool() {
        let rows = read_all::<AccountRow>("pool_id,account_id\np,a\nq,a\np,a\n");
        assert!(rows[1].is_ok());
        assert_eq!(rows[2].as_ref().unwrap_err(), "line 4: account_id is the same as on line 2");
    }
}

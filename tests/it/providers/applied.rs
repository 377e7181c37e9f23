//! Versions of profiles: applied once for good, read and listed.

use holdfast::rpc::pb;
use tonic::Code;

use super::{apply, check, get, profile, world_with};
use crate::support::world::{bad_fields, check_names, metadata, reason};

#[tokio::test]
async fn a_profile_that_is_applied_is_read_as_it_was_written() {
    let (_world, mut clients) = world_with(&["shop"]).await;
    let text = profile("shop", 7);
    let checked = check(&mut clients, &text).await;
    assert_eq!((checked.fault_count, checked.faults.len()), (0, 0));
    let facts = checked.provider.unwrap();
    assert_eq!(facts.apply_time, None);
    let error = get(&mut clients, "shop", 0).await.unwrap_err();
    check_names(&error, Code::NotFound, "PROVIDER_NOT_FOUND", "provider", "shop");

    let applied = apply(&mut clients, &text).await.unwrap();
    assert_eq!((&*applied.provider_id, applied.version, applied.built_in), ("shop", 7, false));
    assert_eq!(applied.profile, text);
    assert_eq!(applied.currencies, ["EUR", "USD"]);
    assert_eq!(applied.operations, ["send"]);
    assert_eq!(applied.secrets, ["token"]);
    assert_eq!(applied.case_count, 2);
    assert!(applied.apply_time.is_some());
    assert_eq!(facts, pb::Provider { apply_time: None, ..applied.clone() });
    for version in [0, 7] {
        assert_eq!(get(&mut clients, "shop", version).await.unwrap(), applied);
    }
    let error = get(&mut clients, "shop", 6).await.unwrap_err();
    check_names(&error, Code::NotFound, "PROVIDER_NOT_FOUND", "provider", "shop");
    assert!(error.message().contains("version 6"), "{error:?}");
    assert_eq!(
        bad_fields(&get(&mut clients, "Shop", -1).await.unwrap_err()),
        ["provider_id", "version"]
    );
}

#[tokio::test]
async fn a_version_never_changes_and_the_same_text_is_fine_at_any_time() {
    let (_world, mut clients) = world_with(&["shop"]).await;
    let first = apply(&mut clients, &profile("shop", 1)).await.unwrap();
    assert_eq!(apply(&mut clients, &profile("shop", 1)).await.unwrap(), first);

    let other = profile("shop", 1).replace("1m", "2m");
    let error = apply(&mut clients, &other).await.unwrap_err();
    check_names(&error, Code::AlreadyExists, "PROVIDER_VERSION_EXISTS", "provider", "shop");
    assert_eq!(
        (metadata(&error, "provider_id"), metadata(&error, "version")),
        ("shop".to_owned(), "1".to_owned())
    );
    let told = check(&mut clients, &other).await;
    assert!(told.provider.is_none());
    let [fault] = &told.faults[..] else { panic!("{told:?}") };
    assert!(fault.line == 3 && fault.message.contains("never changes"), "{fault:?}");
    // Also where only a comment differs: the text is what is compared.
    let error = apply(&mut clients, &format!("{}# x\n", profile("shop", 1))).await.unwrap_err();
    assert_eq!(reason(&error), "PROVIDER_VERSION_EXISTS");
    assert_eq!(get(&mut clients, "shop", 1).await.unwrap(), first);

    let third = apply(&mut clients, &profile("shop", 3)).await.unwrap();
    assert_eq!(get(&mut clients, "shop", 0).await.unwrap(), third);
    assert_eq!(get(&mut clients, "shop", 1).await.unwrap(), first);
    assert_eq!(apply(&mut clients, &profile("shop", 1)).await.unwrap(), first, "as it was");
    assert_eq!(get(&mut clients, "shop", 0).await.unwrap(), third);
}

#[tokio::test]
async fn a_version_below_the_newest_is_refused_because_nothing_would_use_it() {
    let (_world, mut clients) = world_with(&["shop", "other"]).await;
    apply(&mut clients, &profile("shop", 3)).await.unwrap();
    let error = apply(&mut clients, &profile("shop", 2)).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["profile"]);
    assert!(error.message().contains("line 3: version 2 would never be used"), "{error:?}");
    let told = check(&mut clients, &profile("shop", 2)).await;
    assert_eq!((told.fault_count, told.faults[0].line), (1, 3));
    assert_eq!(get(&mut clients, "shop", 2).await.unwrap_err().code(), Code::NotFound);
    apply(&mut clients, &profile("other", 1)).await.unwrap();
}

#[tokio::test]
async fn the_built_in_profile_is_there_without_being_applied_and_cannot_be() {
    let (_world, mut clients) = world_with(&["holdfast"]).await;
    let built_in = get(&mut clients, "holdfast", 0).await.unwrap();
    assert!(built_in.built_in && built_in.apply_time.is_none());
    assert_eq!(built_in.profile, holdfast::provider::profile::BUILT_IN);
    assert_eq!(get(&mut clients, "holdfast", built_in.version).await.unwrap(), built_in);
    assert_eq!(reason(&get(&mut clients, "holdfast", 99).await.unwrap_err()), "PROVIDER_NOT_FOUND");
    for version in [1, 2] {
        let error = apply(&mut clients, &profile("holdfast", version)).await.unwrap_err();
        assert_eq!(bad_fields(&error), ["profile"]);
        assert!(
            error.message().contains("line 2: holdfast is the profile that ships"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn list_providers_has_the_newest_of_each_exactly_once_page_by_page() {
    let names = ["a", "b", "c", "y", "z"];
    let (_world, mut clients) = world_with(&names).await;
    for name in names {
        apply(&mut clients, &profile(name, 1)).await.unwrap();
    }
    apply(&mut clients, &profile("b", 4)).await.unwrap();
    for page_size in [0, 1, 2, 3, 4, 6, 7] {
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = pb::ListProvidersRequest { page_size, page_token };
            let page = clients.providers.list_providers(request).await.unwrap().into_inner();
            assert!(page_size == 0 || page.providers.len() <= usize::try_from(page_size).unwrap());
            listed.extend(page.providers);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let found: Vec<_> = listed.iter().map(|it| (&*it.provider_id, it.version)).collect();
        let wanted = [("a", 1), ("b", 4), ("c", 1), ("holdfast", 1), ("y", 1), ("z", 1)];
        assert_eq!(found, wanted, "pages of {page_size}");
        assert!(listed.iter().all(|it| it.profile.is_empty()));
        assert_eq!(listed[1].operations, ["send"]);
    }
    let request = pb::ListProvidersRequest { page_size: 1001, page_token: "?".to_owned() };
    let error = clients.providers.list_providers(request).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["page_size", "page_token"]);
}

#[tokio::test]
async fn a_page_of_long_profiles_is_shorter_and_nothing_is_left_out() {
    let names: Vec<_> = (0..12).map(|n| format!("long-{n:02}")).collect();
    let (_world, mut clients) = world_with(&names.iter().map(|n| &**n).collect::<Vec<_>>()).await;
    for name in &names {
        let long = format!("{}# {}\n", profile(name, 1), "x".repeat(200_000));
        apply(&mut clients, &long).await.unwrap();
    }
    let (mut listed, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = pb::ListProvidersRequest { page_size: 0, page_token };
        let page = clients.providers.list_providers(request).await.unwrap().into_inner();
        listed.extend(page.providers.into_iter().map(|it| it.provider_id));
        page_token = page.next_page_token;
        pages += 1;
        if page_token.is_empty() {
            break;
        }
    }
    let wanted: Vec<_> = ["holdfast".to_owned()].into_iter().chain(names).collect();
    assert_eq!(listed, wanted);
    assert!(pages > 1, "{pages}");
}

#[tokio::test]
async fn many_who_apply_a_version_at_once_agree_on_one_text() {
    let (_world, clients) = world_with(&["shop"]).await;
    let calls = (0..16).map(|n| {
        let mut clients = clients.clone();
        let text = format!("{}# {}\n", profile("shop", 1), n % 4);
        tokio::spawn(async move { (apply(&mut clients, &text).await, text) })
    });
    let calls: Vec<_> = calls.collect();
    let mut taken = Vec::new();
    for call in calls {
        let (applied, text) = call.await.unwrap();
        match applied {
            Ok(applied) => {
                assert_eq!(applied.profile, text);
                taken.push(text);
            }
            Err(error) => assert_eq!(reason(&error), "PROVIDER_VERSION_EXISTS"),
        }
    }
    taken.dedup();
    assert_eq!(taken.len(), 1, "one text, for all who brought it");
    let mut clients = clients;
    assert_eq!(get(&mut clients, "shop", 1).await.unwrap().profile, taken[0]);
}

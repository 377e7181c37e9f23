//! The modules of `src/`, and which of them each one uses: read by `syn`, as the compiler would, without unit tests.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// The names that lead from the crate's root to a module or to something in it.
pub(super) type Names = Vec<String>;

/// The modules by their names; `lib.rs` has none.
pub(super) struct Modules(BTreeMap<Names, Module>);

/// A module with a file of its own.
struct Module {
    file: PathBuf,
    /// The modules that it declares, those within its file too.
    declares: BTreeSet<String>,
    /// What it imports or exports again, by the name that it has here.
    imports: BTreeMap<String, Names>,
    /// What its code names, as far as it is ours.
    uses: BTreeSet<Names>,
    /// The same, as far as it is of a library: the library's name.
    libraries: BTreeSet<String>,
}

impl Modules {
    /// All modules of the library.
    pub(super) fn read() -> Self {
        let mut modules = Self(BTreeMap::new());
        modules.read_file(Vec::new(), &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
        assert!(modules.0.len() > 50);
        modules
    }

    fn read_file(&mut self, names: Names, file: &Path) {
        let text = fs::read_to_string(file).unwrap();
        let syntax =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let (module, children) = read(&names, file, &syntax);
        self.0.insert(names.clone(), module);
        let is_root = ["lib.rs", "mod.rs"].iter().any(|name| file.ends_with(name));
        let folder =
            if is_root { file.parent().unwrap().to_owned() } else { file.with_extension("") };
        for child in children {
            let files = [folder.join(format!("{child}.rs")), folder.join(&child).join("mod.rs")];
            let file = files.iter().find(|file| file.exists()).unwrap();
            self.read_file([names.as_slice(), &[child]].concat(), file);
        }
    }

    /// Each module's names and file, and the modules that it uses. What a module exports again counts for the module
    /// that has it.
    pub(super) fn uses(&self) -> impl Iterator<Item = (&Names, &Path, BTreeSet<&Names>)> {
        self.0.iter().map(|(names, module)| {
            let used = module.uses.iter().map(|used| self.home(used)).collect();
            (names, module.file.as_path(), used)
        })
    }

    /// Each module's names and file, and the libraries that it uses.
    pub(super) fn libraries(&self) -> impl Iterator<Item = (&Names, &Path, &BTreeSet<String>)> {
        self.0.iter().map(|(names, module)| (names, module.file.as_path(), &module.libraries))
    }

    /// Which modules of a folder use which others of it, by the folder's name. A module counts with all that is in it.
    pub(super) fn edges_in_folders(&self) -> BTreeMap<String, Edges> {
        let mut folders: BTreeMap<_, Edges> = BTreeMap::new();
        for (names, _, used) in self.uses() {
            for used in used {
                let common =
                    names.iter().zip(used).take_while(|(ours, theirs)| ours == theirs).count();
                if let (Some(user), Some(used)) = (names.get(common), used.get(common)) {
                    folders.entry(names[..common].join("::")).or_default().add(user, used);
                }
            }
        }
        folders
    }

    /// The module that has what these names lead to.
    fn home(&self, names: &Names) -> &Names {
        let mut names = names.clone();
        loop {
            let ends = (0..=names.len()).rev();
            let (home, module) =
                ends.filter_map(|end| self.0.get_key_value(&names[..end])).next().unwrap();
            let imported = names.get(home.len()).and_then(|name| module.imports.get(name));
            match imported {
                Some(from) => names = [from, &names[home.len() + 1..]].concat(),
                None => return home,
            }
        }
    }
}

/// Who uses whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Edges(BTreeMap<String, BTreeSet<String>>);

impl Edges {
    pub(super) fn add(&mut self, user: &str, used: &str) {
        self.0.entry(user.to_owned()).or_default().insert(used.to_owned());
    }

    pub(super) fn remove(&mut self, user: &str, used: &str) {
        self.0.get_mut(user).map(|all| all.remove(used));
    }

    fn used_by(&self, user: &str) -> impl Iterator<Item = &str> {
        self.0.get(user).into_iter().flatten().map(String::as_str)
    }

    /// The shortest way from a module back to itself, if there is any.
    pub(super) fn cycle(&self) -> Option<Vec<&str>> {
        self.0.keys().filter_map(|start| self.back_to(start)).min_by_key(Vec::len)
    }

    fn back_to<'a>(&'a self, start: &'a str) -> Option<Vec<&'a str>> {
        let mut paths = VecDeque::from([vec![start]]);
        let mut seen = BTreeSet::new();
        while let Some(path) = paths.pop_front() {
            for used in self.used_by(path.last()?) {
                let longer = [path.as_slice(), &[used]].concat();
                if used == start {
                    return Some(longer);
                }
                if seen.insert(used) {
                    paths.push_back(longer);
                }
            }
        }
        None
    }
}

/// A module as its file tells, and the modules that have files of their own in it.
fn read(names: &Names, file: &Path, syntax: &syn::File) -> (Module, Vec<String>) {
    let (mut declares, mut children) = (BTreeSet::new(), Vec::new());
    for item in &syntax.items {
        if let syn::Item::Mod(item) = item
            && !is_test(&item.attrs)
        {
            declares.insert(item.ident.to_string());
            children.extend(item.content.is_none().then(|| item.ident.to_string()));
        }
    }
    let module = Module {
        file: file.to_owned(),
        declares,
        imports: BTreeMap::new(),
        uses: BTreeSet::new(),
        libraries: BTreeSet::new(),
    };
    let mut reader = Reader { module, file_module: names.clone(), scope: names.clone() };
    reader.visit_file(syntax);
    (reader.module, children)
}

/// Reads a file.
struct Reader {
    module: Module,
    file_module: Names,
    /// The module that is being read: the file's, or one within it.
    scope: Names,
}

impl Reader {
    /// Where names lead from here: to something of ours, or to none.
    fn resolve(&self, path: &[String]) -> Option<Names> {
        let mut path = path.iter();
        let first = path.next()?;
        let mut names = match &**first {
            "crate" => Vec::new(),
            "self" => self.scope.clone(),
            "super" => self.scope.split_last()?.1.to_vec(),
            name if self.module.declares.contains(name) => {
                [&*self.file_module, std::slice::from_ref(first)].concat()
            }
            name => self.module.imports.get(name)?.clone(),
        };
        for name in path {
            match &**name {
                "super" => drop(names.pop()),
                "self" => {}
                _ => names.push(name.clone()),
            }
        }
        Some(names)
    }

    fn note(&mut self, path: &[String]) -> Option<Names> {
        let names = self.resolve(path);
        match &names {
            Some(names) => drop(self.module.uses.insert(names.clone())),
            None => drop(self.module.libraries.insert(path[0].clone())),
        }
        names
    }

    fn import(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.import(&with(&path.ident), &path.tree),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(before, tree));
            }
            syn::UseTree::Glob(_) => drop(self.note(before)),
            syn::UseTree::Name(name) => self.import_as(&with(&name.ident), None),
            syn::UseTree::Rename(name) => self.import_as(&with(&name.ident), Some(&name.rename)),
        }
    }

    fn import_as(&mut self, path: &[String], rename: Option<&syn::Ident>) {
        let names = self.note(path);
        if let Some(names) = names
            && self.scope == self.file_module
        {
            let own = names.last().cloned();
            if let Some(name) = rename.map(ToString::to_string).or(own) {
                self.module.imports.insert(name, names);
            }
        }
    }

    /// The paths in the arguments of a macro, which nothing but the macro can read.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut colons) = (Vec::new(), 0);
        let mut paths = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        paths.push(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                other => {
                    paths.push(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        paths.push(path);
        paths.iter().filter(|path| path.len() > 1).for_each(|path| drop(self.note(path)));
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) && item.content.is_some() {
            self.scope.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.scope.pop();
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.import(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            self.note(&names);
        }
        visit::visit_path(self, path);
    }

    /// `pub(in crate::x)` uses nothing of `x`.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

/// What [`Reader`] makes of a file that has everything: each kind of path, and unit tests, which it leaves out.
#[test]
fn the_uses_of_a_file_are_seen_wherever_they_stand() {
    let syntax = syn::parse_str(
        "mod child;
         pub(in crate::nobody) use self::child::Thing;
         use crate::{domain::{id::PoolId as Id, lease}, store};
         use serde::Serialize;
         #[cfg(test)] use crate::only_in_tests;
         mod within { use super::child::Other; }
         fn f(x: crate::field::X) -> super::Y {
             child::g(lease::h());
             select! { _ = crate::in_a_macro::z() => log!(\"{}\", super::super::w()) }
         }
         #[cfg(test)] mod tests { use crate::only_in_tests; }",
    );
    let names = ["a".to_owned(), "b".to_owned()].to_vec();
    let (module, children) = read(&names, Path::new("b.rs"), &syntax.unwrap());
    assert_eq!(children, ["child"]);
    let uses: Vec<_> = module.uses.iter().map(|names| names.join("::")).collect();
    let expected = [
        "a::Y",
        "a::b::child::Other",
        "a::b::child::Thing",
        "a::b::child::g",
        "domain::id::PoolId",
        "domain::lease",
        "domain::lease::h",
        "field::X",
        "in_a_macro::z",
        "store",
        "w",
    ];
    assert_eq!(uses, expected);
    assert_eq!(module.libraries.into_iter().collect::<Vec<_>>(), ["serde"]);
    assert_eq!(module.imports["Id"].join("::"), "domain::id::PoolId");
}

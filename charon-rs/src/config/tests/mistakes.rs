//! Every kind of mistake, and what is said about it.

use super::*;

/// Cases of `mistakes.txt`: a title after `==== `, the file, a line `----`, and what must be said.
fn cases() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    include_str!("mistakes.txt").split("==== ").skip(1).map(|case| {
        let (title, rest) = case.split_once('\n').unwrap();
        let (config, said) = rest.split_once("\n----\n").unwrap();
        (title, config, said.trim_end())
    })
}

#[test]
fn each_mistake_is_shown_where_it_is_with_what_would_be_right() {
    let mut tested = 0;
    for (title, config, said) in cases() {
        assert_eq!(Folder::new(config).complaints(), said, "{title}");
        tested += 1;
    }
    assert!(tested > 30, "{tested}");
}

#[test]
fn mistakes_in_inherited_keys_are_told_once() {
    let text = "[conn.\"%default\"]\nlifetime = 1\n[conn.base]\nrekeyfuzz = 1\n[conn.a]\nalso = \"base\"\n[conn.b]\nalso = \"base\"\n";
    let problems = Folder::new(text).load().unwrap_err();
    let lines: Vec<usize> = problems.iter().map(|problem| problem.place.as_ref().unwrap().line).collect();
    assert_eq!(lines, [2, 4]);
}

#[test]
fn mistakes_in_both_files_are_told_together() {
    let folder = Folder::with_secrets("[conn.a]\nauto = \"adds\"", "[secret.a]\npks = \"x\"");
    assert_eq!(
        folder.complaints(),
        "error: ipsec.secrets.toml:1:9: secret `a` has no key\n      = expected `psk` or `file`\n\
         error: ipsec.secrets.toml:2:1: unknown key\n      = did you mean `psk`?\n      = expected a key of [secret.NAME]\n\
         error: ipsec.toml:2:9: `adds` is not known here\n    2 | auto = \"adds\"\n      |         ^^^^ did you mean `add`?\n      \
         = expected one of \"ignore\", \"add\", \"route\", \"start\", \"once\", \"route+once\""
    );
}

#[test]
fn a_connection_without_its_secret_is_warned_about() {
    let warned = |ids: &str, secret: &str| {
        let config = format!("[conn.a]\nright = \"10.0.0.2\"\nauto = \"add\"\n{ids}");
        let loaded = Folder::with_secrets(&config, &format!("[secret.a]\npsk = \"x\"\n{secret}")).load().unwrap();
        assert!(loaded.warnings.iter().all(|warning| warning.message == "there is no secret for conn `a`"));
        !loaded.warnings.is_empty()
    };
    let ids = "leftid = \"@us\"\nrightid = \"@them\"";
    assert!(!warned(ids, ""));
    assert!(!warned(ids, "for = [\"@us\", \"@them\"]"));
    assert!(!warned(ids, "for = \"@THEM\""));
    assert!(!warned(ids, "for = [\"@us\", \"@others\", \"@them\"]"));
    assert!(warned(ids, "for = [\"@us\", \"@others\"]"));
    assert!(warned(ids, "for = \"@others\""));
    assert!(!warned("rightid = \"*.b.org\"", "for = [\"x.b.org\", \"10.0.0.1\"]"));
    assert!(!warned("left = \"10.0.0.1\"", "for = [\"10.0.0.1\", \"10.0.0.2\"]"));
    assert!(warned("left = \"10.0.0.1\"", "for = [\"10.0.0.3\", \"10.0.0.2\"]"));
}

#[test]
fn problems_can_be_told_as_json() {
    let problems = Folder::new("[conn.a]\n  autp = 1").load().unwrap_err();
    let json = serde_json::to_value(&problems).unwrap();
    let problem = &json[0];
    assert_eq!(problem["severity"], "error");
    assert_eq!(problem["place"], serde_json::json!({ "line": 2, "column": 3, "width": 4, "text": "  autp = 1" }));
    assert_eq!((problem["message"].as_str(), problem["nearest"].as_str()), (Some("unknown key `autp`"), Some("auto")));
}

/// Columns count characters, not octets, and control characters of the file do not reach the terminal.
#[test]
fn columns_count_characters() {
    let folder = Folder::new("[conn.a]\nleftid = \"m\u{fc}\u{fc}n\" \u{1b}[2J");
    let problems = folder.load().unwrap_err();
    let places: Vec<_> =
        problems.iter().filter_map(|problem| problem.place.as_ref()).map(|place| place.column).collect();
    assert_eq!(places.first(), Some(&17), "{problems}");
    assert!(!problems.to_string().contains('\u{1b}'));
}

/// However a good file is cut or one of its characters changed, reading ends with an answer whose places exist.
#[test]
fn no_damage_to_a_file_stops_its_reader() {
    let text = include_str!("../../../../etc/lab/initiator.toml").split_once("[daemon]").unwrap().1;
    let text = format!(
        "[daemon]{text}\n[conn.\"%default\"]\nalso = \"lab\"\nlifetime = \"1h\"\n[conn.lab.child.x]\ndscp = 1\n"
    );
    let damaged = (0..text.len()).flat_map(|at| {
        let with = |c: &str| format!("{}{c}{}", &text[..at], &text[at + 1..]);
        [text[..at].to_owned(), with(""), with("\""), with("="), with("\n"), with("[")]
    });
    for config in damaged {
        let mut report = Report::default();
        let mut loaded = Loaded::default();
        let source = Source::open(Path::new("ipsec.toml"), config.clone());
        let root = source.parse(&mut report);
        let mut material = Material::around(Path::new("ipsec.toml"), Layer::default(), &mut report);
        read(
            &source,
            &root,
            &Secrets { file: None, sa_keys: BTreeMap::new() },
            &mut material,
            &mut loaded,
            &mut report,
        );
        let problems = report.into_warnings().unwrap_or_else(|problems| problems.iter().cloned().collect());
        for problem in problems {
            let place = problem.place.as_ref().unwrap();
            let line = config.split('\n').nth(place.line - 1).unwrap();
            assert!(place.column <= line.chars().count() + 1, "{problem}");
            assert!(!problem.to_string().is_empty());
        }
    }
}

//! The matrix of requirements is true.

use matrix::{FILE, Matrix, Sources, print, problems, root};

/// Prints the matrix; `cargo test -p matrix -- --nocapture` shows it.
#[test]
fn every_rule_is_kept_where_it_says_and_shown_where_it_says() {
    let (matrix, text) = Matrix::load(&root().join(FILE)).unwrap();
    let problems = problems(&matrix, &text, &Sources::load(&root()).unwrap());
    println!("{}", print(&matrix));
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} problems:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn what_is_wrong_is_said_with_file_and_line() {
    let text = r#"
[rule."R7296-2.1-1"]
level = "MUST"
says = "Something."
code = ["tests/matrix/src/lib.rs: roof"]
tests = ["tests/matrix/src/lib.rs: nothing", "nowhere.rs: it"]

[rule."R7296-2.1-2"]
level = "SHOULD"
says = "Something else."

[hostile.some_input]
input = "Something bad."
status = "not applicable"
"#;
    let matrix: Matrix = toml::from_str(text).unwrap();
    let sources = Sources::load(&root()).unwrap();
    let wrong: Vec<String> = problems(&matrix, text, &sources)
        .iter()
        .filter(|problem| problem.file == FILE)
        .map(|problem| format!("{}: {}", problem.line, problem.what))
        .collect();
    assert_eq!(
        wrong,
        [
            "2: no code that keeps R7296-2.1-1 names it",
            "5: there is no `roof` in that file; maybe `root` is meant",
            "6: there is no file nowhere.rs",
            "6: there is no test `nothing` in that file",
            "8: R7296-2.1-2 cites no code or no test, and there is no exception",
            "12: some_input has an exception without a reason",
        ]
    );
    let unknown = problems(&matrix, text, &sources).into_iter().filter(|problem| problem.file != FILE).count();
    assert!(unknown > 100, "all other rules that the sources cite are unknown to this matrix");
}

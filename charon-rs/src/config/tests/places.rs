//! Where keys stand, for those who explain failures.

use super::*;

const CONFIG: &str = "\
[conn.'%default']
ike = \"aes256gcm16-prfsha256-x25519\"

[conn.base]
right = \"192.0.2.2\"
esp = \"aes256gcm16\"

[conn.gw]
also = \"base\"
auto = \"add\"

[conn.gw.child.lan]
esp = \"aes128gcm16\"

[conn.gw.child.dmz]
leftsubnet = \"10.1.0.0/24\"
rightsubnet = \"10.2.0.0/24\"
";

fn line(places: &Places, child: Option<&str>, key: &str) -> Option<(usize, String)> {
    places.of_key("gw", child, key).map(|line| (line.number, line.text.clone().unwrap()))
}

#[test]
fn a_key_stands_where_it_is_inherited_from() {
    let places = good(CONFIG).places;
    let esp = |text: &str| format!("esp = \"{text}\"");
    assert_eq!(line(&places, Some("lan"), "esp"), Some((13, esp("aes128gcm16"))));
    assert_eq!(line(&places, Some("dmz"), "esp"), Some((6, esp("aes256gcm16"))));
    assert_eq!(line(&places, None, "ike").map(|(number, _)| number), Some(2));
    assert_eq!(line(&places, None, "leftid"), None, "its default holds");
    assert_eq!(places.of_table("gw", Some("dmz")).map(|line| line.number), Some(15));
    assert_eq!(places.of_table("gw", None).map(|line| line.number), Some(8));
}

#[test]
fn lines_of_secrets_have_a_number_and_no_text() {
    let secrets = "# mine\n[secret.site]\nfor = [\"a.example\", \"b.example\"]\npsk = \"what nobody may see\"\n";
    let loaded = Folder::with_secrets(CONFIG, secrets).load().unwrap_or_else(|problems| panic!("{problems}"));
    let line = loaded.places.of_secret("site").unwrap();
    assert_eq!((line.number, line.text.as_deref()), (4, None));
    assert!(!format!("{:?}", loaded.places).contains("nobody"));
}

//! The breaking-change check: what stands in `proto/baseline.bin`, the schema that is out there,
//! is still there unchanged: every message, field (number, type, label, JSON name), enum value and
//! call. Additions are fine and stay unguarded until they are accepted into the baseline, which
//! belongs into the same commit:
//!
//! ```text
//! UPDATE_BASELINE=1 cargo test -p chaski-proto --test schema
//! ```
//!
//! That only ever adds: a schema that breaks the baseline is refused there too.

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};
use std::{collections::BTreeSet, env, fs, path::Path};

/// What a schema promises, one line each.
type Promises = BTreeSet<String>;

fn promises(schema: &FileDescriptorSet) -> Promises {
    let mut promises = Promises::new();
    for file in &schema.file {
        let package = file.package();
        file.message_type.iter().for_each(|m| message(&mut promises, package, m));
        file.enum_type.iter().for_each(|e| enumeration(&mut promises, package, e));
        file.service.iter().for_each(|s| service(&mut promises, package, s));
    }
    promises
}

fn message(promises: &mut Promises, parent: &str, message: &DescriptorProto) {
    let name = format!("{parent}.{}", message.name());
    for one in &message.field {
        // `optional` makes a one-of of its own: presence is told apart, the bytes are the same.
        let oneof = one.oneof_index.filter(|_| !one.proto3_optional());
        let oneof = oneof.map(|at| message.oneof_decl[at as usize].name());
        promises.insert(format!("{name} field {}", field(one, oneof)));
    }
    message.nested_type.iter().for_each(|nested| self::message(promises, &name, nested));
    message.enum_type.iter().for_each(|nested| enumeration(promises, &name, nested));
    promises.insert(format!("{name} message"));
}

fn field(field: &FieldDescriptorProto, oneof: Option<&str>) -> String {
    let (number, name, json) = (field.number(), field.name(), field.json_name());
    let (label, kind, of) = (field.label(), field.r#type(), field.type_name());
    let packed = field.options.as_ref().and_then(|options| options.packed);
    format!("{number} {name} json={json} {label:?} {kind:?}{of} in={oneof:?} packed={packed:?}")
}

fn enumeration(promises: &mut Promises, parent: &str, enumeration: &EnumDescriptorProto) {
    let name = format!("{parent}.{}", enumeration.name());
    for value in &enumeration.value {
        promises.insert(format!("{name} value {} {}", value.number(), value.name()));
    }
}

fn service(promises: &mut Promises, package: &str, service: &ServiceDescriptorProto) {
    for method in &service.method {
        promises.insert(format!(
            "{package}.{} rpc {}({}{}) returns ({}{})",
            service.name(),
            method.name(),
            if method.client_streaming() { "stream " } else { "" },
            method.input_type(),
            if method.server_streaming() { "stream " } else { "" },
            method.output_type(),
        ));
    }
}

fn present() -> FileDescriptorSet {
    FileDescriptorSet::decode(chaski_proto::DESCRIPTORS).expect("the build wrote it")
}

#[test]
fn what_is_out_there_is_kept() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.bin");
    let accept = env::var_os("UPDATE_BASELINE").is_some();
    let baseline = match fs::read(&file) {
        Ok(bytes) => FileDescriptorSet::decode(&bytes[..]).expect("baseline.bin is a schema"),
        Err(_) if accept => FileDescriptorSet::default(),
        Err(error) => panic!("{}: {error}", file.display()),
    };
    let (old, new) = (promises(&baseline), promises(&present()));
    let broken: Vec<_> = old.difference(&new).collect();
    assert!(broken.is_empty(), "no longer in the schema, but others rely on it:\n{broken:#?}");
    if accept {
        fs::write(&file, chaski_proto::DESCRIPTORS).expect("the repository is writable");
    }
}

/// Each of these changes breaks somebody, so each must be seen.
#[test]
fn every_kind_of_break_is_seen() {
    #[track_caller]
    fn check(what: &str, change: impl FnOnce(&mut FileDescriptorSet)) {
        let old = present();
        let mut new = old.clone();
        change(&mut new);
        let broken = promises(&old).difference(&promises(&new)).count();
        assert!(broken > 0, "{what} is not seen");
    }
    fn any_message(schema: &mut FileDescriptorSet) -> &mut DescriptorProto {
        let messages = schema.file.iter_mut().flat_map(|file| &mut file.message_type);
        messages.into_iter().find(|m| m.name() == "SendMessage").expect("in the schema")
    }
    fn any_file(schema: &mut FileDescriptorSet) -> &mut prost_types::FileDescriptorProto {
        schema.file.iter_mut().find(|f| !f.service.is_empty()).expect("in the schema")
    }
    check("a removed field", |s| drop(any_message(s).field.pop()));
    check("another number", |s| any_message(s).field[0].number = Some(99));
    check("another type", |s| any_message(s).field[0].r#type = Some(12));
    check("another label", |s| any_message(s).field[0].label = Some(3));
    check("another JSON name", |s| any_message(s).field[0].json_name = Some("x".into()));
    check("another oneof", |s| any_message(s).field[0].oneof_index = None);
    check("a removed message", |s| s.file.iter_mut().for_each(|f| drop(f.message_type.pop())));
    check("a removed enum value", |s| {
        let mut enums = s.file.iter_mut().flat_map(|file| &mut file.enum_type);
        enums.next().expect("in the schema").value.pop();
    });
    check("a removed call", |s| drop(any_file(s).service[0].method.pop()));
    check("a streaming call", |s| any_file(s).service[0].method[0].server_streaming = Some(true));
}

//! `openapi.json`: the calls of HTTP as an OpenAPI 3.1 document. Must not know which calls there
//! are, nor what a message holds.

use crate::{
    frames::is_durable,
    schema::{Field, Kind, Schema},
};
use chaski_docs::{
    Answer, Example, Item, Known, Method, Parameter as Asked, ROUTES, Route, Shape, Step, story,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::openapi::{
    ComponentsBuilder, Content, ContentBuilder, Header, HeaderBuilder, HttpMethod, InfoBuilder,
    OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr, Required, Response, ResponseBuilder,
    Schema as Json, ServerBuilder, Type,
    example::ExampleBuilder,
    path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn},
    request_body::{RequestBody, RequestBodyBuilder},
    schema::{
        AllOfBuilder, ArrayBuilder, KnownFormat, Object, ObjectBuilder, OneOfBuilder, SchemaFormat,
        SchemaType,
    },
    security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

const INTRODUCTION: &str = "\
Generated from `proto/chaski/v1` and `crates/chaski-docs`; every example is sent to a running \
server by a test. The frames of `/v1/ws` are on [their own page](frames.md).

JSON is proto3's mapping with defaults written: 64-bit integers are strings (taken as string or \
number), bytes are base64, times RFC 3339 in UTC with milliseconds. Fields that a peer does not \
know are ignored.

A write answers with the header `Chaski-Token`; a read that carries it waits (at most 1 s, else \
503) until it can see that write. 503 `outcome_unknown`: it may have happened; send again with the \
same client id.";

/// The document.
pub(crate) fn document(schema: &Schema) -> String {
    let mut writer = Writer { schema, components: BTreeMap::new() };
    let paths = ROUTES.iter().fold(PathsBuilder::new(), |paths, route| {
        paths.path(route.path, PathItem::new(method(route.method), writer.operation(route)))
    });
    let paths = paths.path("/v1/ws", PathItem::new(HttpMethod::Get, upgrade()));
    let problem = writer.problem();
    writer.components.insert("Problem".into(), problem.into());
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("Claims `sub` (user id), `device`, `iat`, `exp`, all required."))
        .build();
    let components = ComponentsBuilder::new()
        .schemas_from_iter(writer.components)
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .build();
    let info = InfoBuilder::new().title("chaski").version("v1").description(Some(INTRODUCTION));
    let server = ServerBuilder::new().url("http://127.0.0.1:8080").description(Some("./dev up"));
    let document = OpenApiBuilder::new()
        .info(info)
        .servers(Some([server.build()]))
        .paths(paths)
        .components(Some(components))
        .security(Some([SecurityRequirement::new("bearer", [""; 0])]))
        .build();
    document.to_pretty_json().expect("a document is JSON") + "\n"
}

fn method(method: Method) -> HttpMethod {
    match method {
        Method::Get => HttpMethod::Get,
        Method::Post => HttpMethod::Post,
        Method::Patch => HttpMethod::Patch,
        Method::Put => HttpMethod::Put,
        Method::Delete => HttpMethod::Delete,
    }
}

/// Of `/v1/ws`.
fn upgrade() -> Operation {
    let protocol = ParameterBuilder::new()
        .name("Sec-WebSocket-Protocol")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Without it: `chaski.v1.json`."))
        .schema(Some(text().enum_values(Some(["chaski.v1.json", "chaski.v1.protobuf"]))));
    let open = "The socket is open; the first frame is `hello`, within 10 s.";
    OperationBuilder::new()
        .operation_id(Some("openSocket"))
        .tag("frames")
        .summary(Some("Open a WebSocket"))
        .description(Some(
            "What is said there is on [the page of frames](frames.md). A browser, which cannot \
             set `Authorization` here, puts the token into `hello`; never into the query.",
        ))
        .parameter(protocol)
        .response("101", Response::new(open))
        .response("401", Response::new("The token in the header is refused."))
        .securities(Some([
            SecurityRequirement::new("bearer", [""; 0]),
            SecurityRequirement::default(),
        ]))
        .build()
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// A 64-bit integer: a request may give it as a number, too.
fn big(request: bool) -> ObjectBuilder {
    let format = Some(SchemaFormat::Custom("uint64".into()));
    if request {
        let kinds: SchemaType = [Type::String, Type::Integer].into_iter().collect();
        ObjectBuilder::new().schema_type(kinds).format(format)
    } else {
        text().format(format).pattern(Some("^[0-9]+$"))
    }
}

fn link(name: &str) -> Ref {
    Ref::from_schema_name(name)
}

struct Writer<'a> {
    schema: &'a Schema,
    components: BTreeMap<String, RefOr<Json>>,
}

impl Writer<'_> {
    fn operation(&mut self, route: &Route) -> OperationBuilder {
        let names = route.path.split('/').filter_map(|part| part.strip_prefix('{'));
        let in_path = names.map(|name| {
            ParameterBuilder::new()
                .name(name.trim_end_matches('}'))
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(text()))
                .build()
        });
        let parameters: Vec<_> =
            in_path.chain(route.parameters.iter().copied().map(parameter)).collect();
        let more = Some(route.more).filter(|words| !words.is_empty());
        let mut operation = OperationBuilder::new()
            .operation_id(Some(route.id))
            .tag(route.tag)
            .summary(Some(route.summary))
            .description(more)
            .parameters(Some(parameters).filter(|all| !all.is_empty()))
            .request_body(route.request.map(|shape| self.request(route, shape)));
        for answer in route.answers {
            operation = operation.response(answer.status.to_string(), self.answer(route, answer));
        }
        let statuses: BTreeSet<u16> = route.problems().map(|(status, _)| status).collect();
        for status in statuses {
            let codes = route.problems().filter(|(s, _)| *s == status).map(|(_, code)| code);
            operation = operation.response(status.to_string(), problem(route, status, codes));
        }
        operation
    }

    fn request(&mut self, route: &Route, shape: Shape) -> RequestBody {
        let examples = calls(route).filter_map(|(example, call)| {
            (call.status < 300 && !call.body.is_empty()).then(|| shown(example, call.body))
        });
        let content = ContentBuilder::new()
            .schema(Some(self.shape(shape)))
            .examples_from_iter(examples)
            .build();
        let body = RequestBodyBuilder::new().required(Some(Required::True));
        body.content("application/json", content).build()
    }

    fn answer(&mut self, route: &Route, answer: &Answer) -> Response {
        let mut response = ResponseBuilder::new().description(answer.means);
        if let Some(shape) = answer.body {
            let content = self.shape(shape);
            response =
                response.content("application/json", content_of(content, route, answer.status));
        }
        if answer.token {
            let words = "Names this write, for reads that must show it.";
            response = response.header("Chaski-Token", header(text(), words));
        }
        response.build()
    }

    fn shape(&mut self, shape: Shape) -> RefOr<Json> {
        match shape {
            Shape::Whole(name) => self.whole(name),
            Shape::Without(name, left_out) => {
                RefOr::T(self.object(name, &|field| !left_out.contains(&&*field.name)).into())
            }
            Shape::Page { list, of, next } => {
                let items = ArrayBuilder::new().items(self.item(of));
                let mut page = ObjectBuilder::new().property(list, items).required(list);
                page = match of {
                    Item::HistoryItem => {
                        page.property("firstSeq", described(big(false), FIRST)).required("firstSeq")
                    }
                    Item::PlacedMessage => page.property("resync", self.whole("Resync")),
                    _ => page,
                };
                RefOr::T(match next {
                    true => page.property("next", described(text(), NEXT)).into(),
                    false => page.into(),
                })
            }
            Shape::Nothing => ObjectBuilder::new().into(),
        }
    }

    /// A message as a component.
    fn whole(&mut self, name: &str) -> RefOr<Json> {
        if !self.components.contains_key(name) {
            // Put before its fields are looked at, because a message may hold itself.
            self.components.insert(name.into(), ObjectBuilder::new().into());
            let object = self.object(name, &|_| true);
            self.components.insert(name.into(), object.into());
        }
        link(name).into()
    }

    fn object(&mut self, name: &str, has: &dyn Fn(&Field) -> bool) -> Object {
        let schema = self.schema;
        let message = schema.message(name);
        let mut object = ObjectBuilder::new().description(words(&message.comment));
        for field in message.fields.iter().filter(|field| has(field)) {
            object = object.property(&field.name, self.field(field, message.request));
            if !field.optional {
                object = object.required(&field.name);
            }
        }
        object.build()
    }

    fn field(&mut self, field: &Field, request: bool) -> RefOr<Json> {
        let one: RefOr<Json> = match &field.kind {
            Kind::Text => text().into(),
            Kind::Bool => ObjectBuilder::new().schema_type(Type::Boolean).into(),
            Kind::Number => ObjectBuilder::new().schema_type(Type::Integer).into(),
            Kind::Big => big(request).into(),
            Kind::Bytes => text().content_encoding("base64").into(),
            Kind::Time => {
                text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))).into()
            }
            Kind::Message(name) => self.whole(name),
            Kind::Enum(name) => {
                let values = &self.schema.enumeration(name).values;
                if !self.components.contains_key(name) {
                    let names = text().enum_values(Some(values.clone()));
                    self.components.insert(name.clone(), names.into());
                }
                link(name).into()
            }
        };
        match (field.list, one) {
            (true, items) => {
                ArrayBuilder::new().items(items).description(words(&field.comment)).into()
            }
            (false, RefOr::Ref(mut link)) => {
                link.description.clone_from(&field.comment);
                link.into()
            }
            (false, RefOr::T(Json::Object(mut object))) => {
                object.description = words(&field.comment).map(ToOwned::to_owned);
                object.into()
            }
            (false, other) => other,
        }
    }

    /// What a page lists, as a component where the schema has no such message.
    fn item(&mut self, item: Item) -> RefOr<Json> {
        let (name, made): (_, RefOr<Json>) = match item {
            Item::Message(name) => return self.whole(name),
            Item::Event => {
                // The durable bodies: those that come at a position.
                let durable = |field: &Field| match &field.choice {
                    None => field.name == "position",
                    Some(_) => is_durable(&field.name),
                };
                let event = self.object("ServerFrame", &durable);
                let words = "An event at its position, as a server frame: exactly one body.";
                let event = ObjectBuilder::from(event).description(Some(words));
                ("Event", event.required("position").into())
            }
            Item::HistoryItem => {
                let place = || ObjectBuilder::new().property("seq", big(false)).required("seq");
                let update = self.whole("ChatUpdate");
                let update = place().property("chatUpdate", update).required("chatUpdate");
                let hidden = place().property("hidden", truth()).required("hidden");
                let expired = place().property("expired", truth()).required("expired");
                let one = OneOfBuilder::new().item(self.whole("NewMessage"));
                let words = "A place in a chat: a message, a change of the chat, what a block \
                    has withheld, or what has expired.";
                let one = one.item(update).item(hidden).item(expired);
                ("HistoryItem", one.description(Some(words)).into())
            }
            Item::PlacedMessage => {
                let position =
                    || ObjectBuilder::new().property("position", big(false)).required("position");
                let message = AllOfBuilder::new().item(self.whole("NewMessage")).item(position());
                let expired = position()
                    .property("chatId", text())
                    .required("chatId")
                    .property("seq", big(false))
                    .required("seq")
                    .property("expired", truth())
                    .required("expired");
                let words = "A message, or that its chat does not keep it any more, and its place \
                    in the user's order.";
                let one = OneOfBuilder::new().item(message).item(expired);
                ("PlacedMessage", one.description(Some(words)).into())
            }
        };
        self.components.insert(name.into(), made);
        link(name).into()
    }

    /// RFC 9457.
    fn problem(&mut self) -> Object {
        let connection = self.whole("Connection");
        let connection = match connection {
            RefOr::Ref(mut link) => {
                link.description = "The present state, with a 409 of a contact or block.".into();
                RefOr::Ref(link)
            }
            other => other,
        };
        let status = ObjectBuilder::new().schema_type(Type::Integer);
        ObjectBuilder::new()
            .description(Some("RFC 9457. Programs look at `status` and `code`."))
            .property("type", text())
            .required("type")
            .property("title", text())
            .required("title")
            .property("status", status)
            .required("status")
            .property("detail", described(text(), "For people: what is wrong and what to do."))
            .required("detail")
            .property("code", described(text(), "Stable, for programs."))
            .required("code")
            .property("connection", connection)
            .build()
    }
}

const FIRST: &str = "The first seq that is kept of what the caller may see: what is before it has \
    expired.";
const NEXT: &str = "Goes into the parameter for the next page; absent where there is none.";

fn words(comment: &str) -> Option<&str> {
    Some(comment).filter(|words| !words.is_empty())
}

fn described(object: ObjectBuilder, words: &str) -> ObjectBuilder {
    object.description(Some(words))
}

fn truth() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true]))
}

fn header(schema: ObjectBuilder, words: &str) -> Header {
    HeaderBuilder::new().schema(Some(schema)).description(Some(words)).build()
}

fn parameter(asked: Asked) -> Parameter {
    let integer = || ObjectBuilder::new().schema_type(Type::Integer);
    let (name, place, schema, words) = match asked {
        Asked::Limit => {
            let limit = integer().minimum(Some(1)).maximum(Some(500)).default(Some(json!(50)));
            ("limit", ParameterIn::Query, limit, "How many at most.")
        }
        Asked::After(words) => ("after", ParameterIn::Query, text(), words),
        Asked::Before => {
            let words = "A seq: what comes before it. Not together with `after`.";
            ("before", ParameterIn::Query, text(), words)
        }
        Asked::BasedOn => {
            ("basedOnVersion", ParameterIn::Query, text(), "The version that the caller knows.")
        }
        Asked::Seeing => {
            ("Chaski-Token", ParameterIn::Header, text(), "A write that the answer must show.")
        }
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(words))
        .schema(Some(schema))
        .build()
}

/// A call of the story.
struct Call {
    status: u16,
    body: &'static str,
    answer: &'static str,
}

fn calls(of: &Route) -> impl Iterator<Item = (&'static Example, Call)> {
    let id = of.id;
    story().filter_map(move |example| match example.step {
        Step::Call { route, status, body, answer, .. } if route == id => {
            Some((example, Call { status, body, answer }))
        }
        _ => None,
    })
}

/// An example as the document has it.
fn shown(example: &Example, text: &str) -> (String, utoipa::openapi::example::Example) {
    let value: Value =
        serde_json::from_str(&Known::samples().fill(text)).expect("an example is JSON");
    let shown = ExampleBuilder::new().summary(example.shows).value(Some(value));
    (example.name.to_owned(), shown.build())
}

fn content_of(schema: RefOr<Json>, route: &Route, status: u16) -> Content {
    let examples = calls(route).filter_map(|(example, call)| {
        (call.status == status && !call.answer.is_empty()).then(|| shown(example, call.answer))
    });
    ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build()
}

fn problem<'a>(route: &Route, status: u16, codes: impl Iterator<Item = &'a str>) -> Response {
    let codes: Vec<_> = codes.map(|code| format!("`{code}`")).collect();
    let content = content_of(link("Problem").into(), route, status);
    let mut response = ResponseBuilder::new()
        .description(codes.join(", "))
        .content("application/problem+json", content);
    let integer = || ObjectBuilder::new().schema_type(Type::Integer);
    if status == 503 {
        response = response.header("Retry-After", header(integer(), "Seconds."));
    }
    if status == 401 {
        response = response.header("WWW-Authenticate", header(text(), "`Bearer`."));
    }
    response.build()
}

//! External terms, written byte by byte.

/// A whole payload: 131 and the element.
pub fn payload(element: &[u8]) -> Vec<u8> {
    [&[131], element].concat()
}

/// The payload of a binary.
pub fn text(text: &str) -> Vec<u8> {
    payload(&binary(text.as_bytes()))
}

/// The payload of a binary of zeros, `bytes` long in all. At least 6.
pub fn of_size(bytes: usize) -> Vec<u8> {
    payload(&binary(&vec![0; bytes - 6]))
}

/// The payload of an integer.
pub fn number(number: u32) -> Vec<u8> {
    [&[131, 98], &number.to_be_bytes()[..]].concat()
}

pub fn binary(bytes: &[u8]) -> Vec<u8> {
    [&[109], &(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// At most 255 bytes.
pub fn atom(text: &str) -> Vec<u8> {
    [&[119, text.len() as u8], text.as_bytes()].concat()
}

pub fn small(number: u8) -> Vec<u8> {
    vec![97, number]
}

pub fn tuple(elements: &[Vec<u8>]) -> Vec<u8> {
    [vec![104, elements.len() as u8], elements.concat()].concat()
}

/// With a tail of its own; `&[106]` for a proper list.
pub fn list(elements: &[Vec<u8>], tail: &[u8]) -> Vec<u8> {
    [&[108], &(elements.len() as u32).to_be_bytes()[..], &elements.concat(), tail].concat()
}

/// NEW_PID_EXT.
pub fn pid(node: &str, id: u32) -> Vec<u8> {
    [vec![88], atom(node), id.to_be_bytes().to_vec(), vec![0, 0, 0, 0], vec![0, 0, 0, 1]].concat()
}

/// NEWER_REFERENCE_EXT of one word.
pub fn reference(node: &str, id: u32) -> Vec<u8> {
    [vec![90, 0, 1], atom(node), vec![0, 0, 0, 1], id.to_be_bytes().to_vec()].concat()
}

/// NEW_PORT_EXT.
pub fn port(node: &str, id: u32) -> Vec<u8> {
    [vec![89], atom(node), id.to_be_bytes().to_vec(), vec![0, 0, 0, 1]].concat()
}

/// EXPORT_EXT: `fun module:function/arity`.
pub fn export(module: &str, function: &str, arity: u8) -> Vec<u8> {
    [vec![113], atom(module), atom(function), small(arity)].concat()
}

/// What `protocol.md` 10.5 lists, by name: payloads that a SEND may not carry.
pub fn disguises() -> Vec<(String, Vec<u8>)> {
    let one = small(1);
    let mut all = Vec::new();
    let tags = ["system", "EXIT", "DOWN", "io_request", "io_reply", "nodedown", "nodeup", "global_name_conflict"];
    let behaviours = ["$gen_call", "$gen_cast", "$gen_event", "$gen_all_state_event", "$gen_consumer", "$gen_"];
    for head in tags.into_iter().chain(behaviours) {
        all.push((head.to_owned(), payload(&tuple(&[atom(head), one.clone(), one.clone()]))));
    }
    let alias = list(&[atom("alias")], &one);
    all.push(("alias".into(), payload(&tuple(&[alias.clone(), one.clone()]))));
    all.push(("alias, nested".into(), payload(&tuple(&[list(&[alias], &one), one.clone()]))));
    for word in ["stop", "which_handlers", "get_modules"] {
        all.push((word.into(), payload(&tuple(&[one.clone(), one.clone(), atom(word)]))));
    }
    let requests = [
        ("call", 3),
        ("add_handler", 3),
        ("delete_handler", 3),
        ("sync_notify", 2),
        ("add_sup_handler", 4),
        ("swap_handler", 5),
        ("swap_sup_handler", 6),
    ];
    for (head, size) in requests {
        let mut request = vec![one.clone(); size];
        request[0] = atom(head);
        all.push((head.into(), payload(&tuple(&[one.clone(), one.clone(), tuple(&request)]))));
    }
    all
}

//! What a proxy says before the client does: any bytes are a header, none, or the beginning of one, whatever is behind them and
//! however they are cut; and who reads only what is missing never reads past a header.

#![no_main]

use fanfare::admission::proxy::{missing, parse};
use libfuzzer_sys::fuzz_target;

/// The longest header there is: 16 bytes, and 4096 behind them.
const HEADER_BYTES_MAX: usize = 16 + 4096;

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    let mut read = 0;
    while read < data.len() && parse(&data[..read]) == Ok(None) {
        let missing = missing(&data[..read]);
        assert!(missing > 0 && read + missing <= HEADER_BYTES_MAX);
        read = data.len().min(read + missing);
    }
    match parse(&data[..read]) {
        Ok(Some(header)) => assert_eq!(header.bytes, read, "not a byte more was read"),
        Ok(None) => assert_eq!(read, data.len()),
        Err(_) => {}
    }
    for cut in 0..data.len().min(HEADER_BYTES_MAX + 1) {
        match parse(&data[..cut]) {
            Ok(None) => {}
            early => assert_eq!(early, whole, "cut at {cut}"),
        }
    }
    if let Ok(Some(header)) = whole {
        assert!(header.bytes <= data.len() && parse(&data[..header.bytes]) == whole);
    }
});

// hiredis only formats and parses here; SwiftNIO carries the bytes. 0.14's pkg-config file holds a -D flag that SwiftPM
// refuses with a warning, so there is none in Package.swift. Builds with hiredis 0.14 and 1.x.
#include <hiredis/hiredis.h>

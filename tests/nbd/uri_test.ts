import fc from "../property.ts";
import { UsageError } from "../../src/errors.ts";
import type { SocketAddress } from "../../src/io/io.ts";
import { formatNbdUri, isNbdUri, parseNbdUri } from "../../src/nbd/uri.ts";
import { assert, assertEquals, assertThrows } from "../assert.ts";

Deno.test("parseNbdUri: takes every form apart", () => {
  const cases: [string, SocketAddress, string][] = [
    ["nbd://host", { transport: "tcp", hostname: "host", port: 10809 }, ""],
    ["nbd://host/", { transport: "tcp", hostname: "host", port: 10809 }, ""],
    ["nbd://host:0/disk", { transport: "tcp", hostname: "host", port: 0 }, "disk"],
    ["nbd://host//disk", { transport: "tcp", hostname: "host", port: 10809 }, "/disk"],
    ["NBD://127.0.0.1:65535/a%20b/c", { transport: "tcp", hostname: "127.0.0.1", port: 65535 }, "a b/c"],
    ["nbd://[::1]:99/x", { transport: "tcp", hostname: "::1", port: 99 }, "x"],
    ["nbd://[fe80::1%25eth0]", { transport: "tcp", hostname: "fe80::1%eth0", port: 10809 }, ""],
    ["nbd+unix:///?socket=/run/n.sock", { transport: "unix", path: "/run/n.sock" }, ""],
    ["nbd+unix:///disk?socket=rel.sock&x-note=1", { transport: "unix", path: "rel.sock" }, "disk"],
    ["nbd+unix://?socket=/s%3fp", { transport: "unix", path: "/s?p" }, ""],
    ["nbd+unix:///?socket=%00abstract", { transport: "unix", path: "\0abstract" }, ""],
  ];
  for (const [text, address, exportName] of cases) {
    const uri = parseNbdUri(text);
    assertEquals([uri.address, uri.exportName, uri.tls], [address, exportName, false], text);
  }
});

Deno.test("parseNbdUri: tells TLS, the user and known parameters", () => {
  const uri = parseNbdUri("nbds://alice@host/disk?tls-type=psk&tls-verify-peer=0");
  assertEquals([uri.tls, uri.userName], [true, "alice"]);
  assertEquals(uri.parameters, { "tls-type": "psk", "tls-verify-peer": "0" });
  assertEquals(parseNbdUri("nbds+unix:///?socket=/s").tls, true);
});

Deno.test("parseNbdUri: refuses what cannot be meant, with the reason", () => {
  const cases: [string, string][] = [
    ["", "shape"],
    ["/dev/sda", "shape"],
    ["nbd:host", "shape"],
    ["nbd://host/#x", "shape"],
    ["http://host/", "scheme"],
    ["nbd+vsock://2:10809", "scheme"],
    ["nbd:///disk", "host is missing"],
    ["nbd://host:70000", "65535"],
    ["nbd://host:port", "not HOST"],
    ["nbd://::1/", "not HOST"],
    ["nbd://host?socket=/s", "nbd+unix"],
    ["nbd://host/%ff", "percent-encoded"],
    ["nbd://host/%zz", "percent-encoded"],
    ["nbd://host?colour=red", '"colour" is unknown'],
    ["nbd://host?tls-type", "no value"],
    ["nbd://host?x-a=1&x-a=2", "twice"],
    ["nbd+unix:///disk", "socket=PATH is missing"],
    ["nbd+unix:///?socket=", "socket=PATH is missing"],
    ["nbd+unix:///?socket=/a&socket=/b", "twice"],
    ["nbd+unix://host/?socket=/s", "has no host"],
  ];
  for (const [text, reason] of cases) assertThrows(() => parseNbdUri(text), UsageError, reason, text);
});

Deno.test("formatNbdUri: parseNbdUri gives back what was formatted", () => {
  const name = fc.string({ unit: "grapheme" }).filter((text) => text.isWellFormed());
  const address: fc.Arbitrary<SocketAddress> = fc.oneof(
    fc.record({
      transport: fc.constant("tcp" as const),
      hostname: fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6()),
      port: fc.nat(65535),
    }),
    fc.record({ transport: fc.constant("unix" as const), path: name.filter((text) => text !== "") }),
  );
  fc.assert(fc.property(address, name, fc.boolean(), (address, exportName, tls) => {
    const uri = parseNbdUri(formatNbdUri(address, exportName, { tls }));
    assertEquals([uri.address, uri.exportName, uri.tls], [address, exportName, tls]);
  }));
});

Deno.test("isNbdUri: tells URIs from paths", () => {
  for (const text of ["nbd://h", "nbds://h", "nbd+unix:///?socket=s", "NBD:x", "nbd+vsock://1"]) {
    assert(isNbdUri(text), text);
  }
  for (const text of ["/dev/nbd0", "nbd", "nbd.img", "./nbd:1", "C:\\disk"]) assert(!isNbdUri(text), text);
});

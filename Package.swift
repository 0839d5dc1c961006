// swift-tools-version: 6.2
// Swift 6.2 is the oldest release that Hummingbird 2.28 and swift-log 1.16 build with.
import Foundation
import PackageDescription

let shared: [SwiftSetting] =
  [
    .enableUpcomingFeature("ExistentialAny")
  ]
  // CI treats every warning of our own targets as an error; a newer compiler's new warning must not stop a user's build.
  + (ProcessInfo.processInfo.environment["POSTRIDER_STRICT"] == nil ? [] : [.treatAllWarnings(as: .error)])

func library(_ name: String, _ dependencies: [Target.Dependency] = [], resources: [Resource] = []) -> Target {
  .target(name: name, dependencies: dependencies, resources: resources, swiftSettings: shared)
}

func tests(of name: String, _ dependencies: [Target.Dependency] = [], exclude: [String] = []) -> Target {
  .testTarget(
    name: "\(name)Tests", dependencies: [.byName(name: name)] + dependencies, exclude: exclude, swiftSettings: shared)
}

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioTLS = Target.Dependency.product(name: "NIOTLS", package: "swift-nio")
let nioConcurrency = Target.Dependency.product(name: "NIOConcurrencyHelpers", package: "swift-nio")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let nioTestUtils = Target.Dependency.product(name: "NIOTestUtils", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let hummingbirdCore = Target.Dependency.product(name: "HummingbirdCore", package: "hummingbird")
let hummingbirdTesting = Target.Dependency.product(name: "HummingbirdTesting", package: "hummingbird")
let httpClient = Target.Dependency.product(name: "AsyncHTTPClient", package: "async-http-client")
let unixSignals = Target.Dependency.product(name: "UnixSignals", package: "swift-service-lifecycle")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let configuration = Target.Dependency.product(name: "Configuration", package: "swift-configuration")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let metrics = Target.Dependency.product(name: "Metrics", package: "swift-metrics")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let cryptoExtras = Target.Dependency.product(name: "CryptoExtras", package: "swift-crypto")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let subprocess = Target.Dependency.product(name: "Subprocess", package: "swift-subprocess")

let package = Package(
  name: "postrider",
  platforms: [.macOS(.v15)],
  products: [
    .executable(name: "postrider", targets: ["postrider"])
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.6"),
    .package(url: "https://github.com/hummingbird-project/hummingbird.git", from: "2.28.1"),
    .package(url: "https://github.com/swift-server/async-http-client.git", from: "1.37.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle.git", from: "2.13.0"),
    .package(url: "https://github.com/apple/swift-configuration.git", from: "1.4.0"),
    .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log.git", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-metrics.git", from: "2.13.0"),
    .package(url: "https://github.com/apple/swift-crypto.git", from: "4.5.2"),
    .package(url: "https://github.com/swiftlang/swift-subprocess.git", from: "1.0.2"),
  ],
  targets: [
    .systemLibrary(name: "CHiredis", providers: [.apt(["libhiredis-dev"]), .brew(["hiredis"])]),
    .systemLibrary(name: "CLibPQ", pkgConfig: "libpq", providers: [.apt(["libpq-dev"]), .brew(["libpq"])]),
    .systemLibrary(name: "CGSASL", pkgConfig: "libgsasl", providers: [.apt(["libgsasl-dev"]), .brew(["gsasl"])]),
    .systemLibrary(name: "CGMime", pkgConfig: "gmime-3.0", providers: [.apt(["libgmime-3.0-dev"]), .brew(["gmime"])]),

    library("PostriderCore"),
    library("Telemetry", ["PostriderCore", logging, metrics, nioConcurrency]),
    library(
      "RedisQueue", ["PostriderCore", "CHiredis", nioCore, nioPosix, nioTLS, nioSSL, logging, metrics],
      resources: [.embedInCode("Scripts")]),
    library(
      "PostgresStore", ["PostriderCore", "CLibPQ", crypto, logging, metrics], resources: [.embedInCode("Migrations")]),
    library(
      "MailProtocols",
      ["PostriderCore", "CGSASL", crypto, nioCore, nioPosix, nioTLS, nioSSL, nioConcurrency, logging]),
    library("MailMessage", ["PostriderCore", "CGMime"]),
    library(
      "WebServices",
      [
        "PostriderCore", "MailProtocols", httpClient, crypto, cryptoExtras, nioCore, nioPosix, nioHTTP1, nioSSL,
        lifecycle,
        logging, metrics,
      ]),
    library("Scheduler", ["PostriderCore", lifecycle, logging, metrics]),
    library("Worker", ["PostriderCore", "MailProtocols", "MailMessage", lifecycle, logging, metrics, crypto]),
    library(
      "AdminServer",
      [
        "PostriderCore", "Telemetry", "MailMessage", hummingbird, hummingbirdCore, lifecycle, nioCore,
        nioPosix, nioSSL, crypto, cryptoExtras, logging,
      ]),
    library("PrivateServers", ["PostriderCore", subprocess, logging]),
    .executableTarget(
      name: "postrider",
      dependencies: [
        "PostriderCore", "Telemetry", "RedisQueue", "PostgresStore", "MailProtocols", "MailMessage", "Scheduler",
        "Worker", "WebServices",
        "AdminServer", "PrivateServers", "CHiredis", "CLibPQ", nioCore, nioPosix, nioSSL, hummingbird, httpClient,
        lifecycle, unixSignals,
        configuration,
        arguments,
        logging, metrics,
      ],
      swiftSettings: shared),
    library(
      "PostriderTesting",
      [
        "PostriderCore", "MailProtocols", "PrivateServers", "PostgresStore", "RedisQueue", nioCore, nioPosix, nioHTTP1,
        nioSSL, httpClient, crypto, cryptoExtras, logging,
      ]),

    tests(of: "PostriderCore"),
    tests(of: "Telemetry", [metrics]),
    tests(of: "RedisQueue", ["PostriderTesting", nioCore, nioPosix, logging], exclude: ["Previous"]),
    tests(of: "PostgresStore", ["PostriderTesting"]),
    tests(of: "MailProtocols", ["PostriderTesting", "PrivateServers", nioEmbedded, nioTestUtils, crypto, logging]),
    tests(of: "MailMessage"),
    tests(
      of: "postrider",
      [
        "PostriderCore", "PostriderTesting", "AdminServer", "MailProtocols", "Telemetry", "PrivateServers",
        "PostgresStore", "RedisQueue", "WebServices", hummingbird, nioCore, lifecycle, logging,
      ]),
    tests(
      of: "Scheduler",
      ["PostriderTesting", "PrivateServers", "RedisQueue", "PostgresStore", "Telemetry", lifecycle, logging]),
    tests(
      of: "Worker",
      [
        "PostriderTesting", "RedisQueue", "PostgresStore", "Scheduler", "MailProtocols", "MailMessage",
        "PrivateServers", "WebServices",
        nioPosix, lifecycle, logging,
      ]),
    tests(
      of: "WebServices",
      [
        "PostriderTesting", "PostgresStore", "MailProtocols", "PrivateServers", crypto, cryptoExtras, lifecycle,
        logging,
      ]),
    tests(of: "AdminServer", ["PostriderTesting", "PostgresStore", hummingbirdTesting, httpClient]),
    tests(of: "PrivateServers", ["PostriderTesting", subprocess]),
    .testTarget(
      name: "EndToEndTests", dependencies: ["PostriderTesting", "PostriderCore", "postrider"],
      swiftSettings: shared),
    .testTarget(
      name: "DeploymentTests",
      dependencies: [
        "PostriderTesting", "PostriderCore", "PostgresStore", "RedisQueue", "PrivateServers", "Telemetry", "postrider",
        logging,
      ], swiftSettings: shared),
    .testTarget(
      name: "ChaosTests",
      dependencies: [
        "PostriderTesting", "PostriderCore", "PostgresStore", "RedisQueue", "PrivateServers", "postrider", nioCore,
        nioPosix, httpClient, crypto, logging,
      ],
      swiftSettings: shared),
  ]
)

// The parsers under libFuzzer (ops/fuzz): a program of its own, which only a compiler with `-sanitize=fuzzer` can link.
if ProcessInfo.processInfo.environment["POSTRIDER_FUZZ"] != nil {
  package.products.append(.executable(name: "postrider-fuzz", targets: ["postrider-fuzz"]))
  package.targets.append(
    .executableTarget(
      name: "postrider-fuzz", dependencies: ["PostriderCore", "MailProtocols", "MailMessage", nioCore],
      path: "Sources/Fuzz", exclude: ["Seeds"],
      swiftSettings: shared + [.unsafeFlags(["-parse-as-library"])],
      linkerSettings: [.unsafeFlags(["-sanitize=fuzzer"])]))
}

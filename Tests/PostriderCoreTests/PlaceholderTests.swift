import Testing

@Test func placeholderPostriderCore() {}

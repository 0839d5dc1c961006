enum MailProtocolsPlaceholder {}

// SCRAM, CRAM-MD5, GSSAPI and NTLM. The library does no input or output of its own, but for GSSAPI, which asks the KDC.
#include <gsasl.h>

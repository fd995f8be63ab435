// A program of somebody else: it uses Millrace as a library. The test that builds it
// says where Millrace is.
module example.org/newports

go 1.26.0

// Package operators is a client of the api's operators' side, generated like package
// customers.
package operators

import _ "github.com/oapi-codegen/runtime" // which the generated code needs

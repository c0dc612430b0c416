package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// schemas makes JSON Schemas of Go types as encoding/json writes them. The tag doc describes
// a field, and empty says that one of few values may be "" too.
type schemas struct {
	components map[string]object
	types      map[string]reflect.Type // by name of the component
}

func newSchemas() *schemas {
	return &schemas{components: map[string]object{}, types: map[string]reflect.Type{}}
}

// of returns the schema of v's type.
func (s *schemas) of(v any) (object, error) { return s.schema(reflect.TypeOf(v)) }

// ofBody is of, for a body that we read: fields that are not known are refused.
func (s *schemas) ofBody(v any) (object, error) {
	o, err := s.of(v)
	if err == nil {
		s.components[reflect.TypeOf(v).Name()]["additionalProperties"] = false
	}
	return o, err
}

// enum lists the values of our types that have few.
func enum(t reflect.Type) []string {
	switch t {
	case reflect.TypeFor[control.CustomerStatus]():
		return texts(control.CustomerPending, control.CustomerActive, control.CustomerSuspended, control.CustomerCancelled)
	case reflect.TypeFor[control.Language]():
		return texts(control.English, control.Portuguese)
	case reflect.TypeFor[control.BoxState]():
		return boxStates()
	case reflect.TypeFor[control.BoxTrouble]():
		return texts(control.BoxTroubles()...)
	case reflect.TypeFor[control.BoxWants]():
		return texts(control.BoxRun, control.BoxSuspend, control.BoxDestroy)
	case reflect.TypeFor[control.Role]():
		return texts(control.RoleSupport, control.RoleOperator, control.RoleAdmin)
	case reflect.TypeFor[control.SubjectKind]():
		return texts(control.SubjectCustomer, control.SubjectOperator)
	case reflect.TypeFor[control.ReplicaStatus]():
		return texts(control.ReplicaLive, control.ReplicaLost)
	case reflect.TypeFor[contract.Status]():
		return texts(contract.StatusActive, contract.StatusSuspended, contract.StatusRevoked)
	case reflect.TypeFor[PaymentMode]():
		return texts(PaymentsNone, PaymentsSimulated, PaymentsTest, PaymentsLive)
	case reflect.TypeFor[QuotaAction]():
		return texts(QuotaSet, QuotaAdd, QuotaReset)
	}
	return nil
}

func texts[T ~string](values ...T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

func (s *schemas) schema(t reflect.Type) (object, error) {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}, nil
	case reflect.TypeFor[json.RawMessage](), reflect.TypeFor[any]():
		return object{}, nil
	case reflect.TypeFor[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}, nil
	}
	switch t.Kind() {
	case reflect.String:
		o := object{"type": "string"}
		if values := enum(t); values != nil {
			o["enum"] = values
		}
		return o, nil
	case reflect.Bool:
		return object{"type": "boolean"}, nil
	case reflect.Int, reflect.Int32, reflect.Int64:
		return object{"type": "integer", "format": "int64"}, nil
	case reflect.Float64:
		return object{"type": "number", "format": "double"}, nil
	case reflect.Slice:
		items, err := s.schema(t.Elem())
		return object{"type": "array", "items": items}, err
	case reflect.Map:
		values, err := s.schema(t.Elem())
		return object{"type": "object", "additionalProperties": values}, err
	case reflect.Pointer:
		o, err := s.schema(t.Elem())
		return object{"anyOf": []object{o, {"type": "null"}}}, err
	case reflect.Struct:
		return s.component(t)
	}
	return nil, fmt.Errorf("%s has no schema", t)
}

// componentName is the type's name; List[T] is TList.
func componentName(t reflect.Type) string {
	name := t.Name()
	if of, ok := strings.CutPrefix(name, "List["); ok {
		of = strings.TrimSuffix(of, "]")
		return of[strings.LastIndexByte(of, '.')+1:] + "List"
	}
	return name
}

func (s *schemas) component(t reflect.Type) (object, error) {
	name := componentName(t)
	if name == "" {
		return nil, fmt.Errorf("%s has no name", t)
	}
	ref := object{"$ref": "#/components/schemas/" + name}
	if other, ok := s.types[name]; ok {
		if other != t {
			return nil, fmt.Errorf("%s and %s would have the same name", other, t)
		}
		return ref, nil
	}
	s.types[name] = t
	properties, required := object{}, []string{}
	if err := s.fields(t, properties, &required, nil); err != nil {
		return nil, err
	}
	o := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		o["required"] = required
	}
	s.components[name] = o
	return ref, nil
}

// fields adds the fields of a struct, those of embedded structs among them but for such as are hidden:
// one of the struct's own takes the place of an embedded one's with the same name.
func (s *schemas) fields(t reflect.Type, properties object, required *[]string, hidden []string) error {
	own := hidden
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" {
			own = append(own[:len(own):len(own)], name)
		}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-", slices.Contains(hidden, name):
			continue
		case f.Anonymous && name == "":
			if err := s.fields(f.Type, properties, required, own); err != nil {
				return err
			}
			continue
		case !f.IsExported():
			continue
		case name == "":
			return fmt.Errorf("%s.%s has no name in JSON", t, f.Name)
		}
		typ := f.Type
		if typ.Kind() == reflect.Pointer && strings.Contains(options, "omit") {
			typ = typ.Elem() // it is left out, and never null
		}
		o, err := s.schema(typ)
		if err != nil {
			return err
		}
		if values, ok := o["enum"].([]string); ok && f.Tag.Get("empty") != "" {
			o["enum"] = append([]string{""}, values...)
		}
		if about := f.Tag.Get("doc"); about != "" {
			o["description"] = about
		}
		properties[name] = o
		if !strings.Contains(options, "omit") && f.Type.Kind() != reflect.Pointer {
			*required = append(*required, name)
		}
	}
	return nil
}

package lab

import "testing"

func TestParseCalls(t *testing.T) {
	t.Parallel()
	calls, err := parseCalls([]byte(`% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000060           1        40           write
 40.00    0.000040           1        30         9 read
------ ----------- ----------- --------- --------- ----------------
100.00    0.000100           1        70         9 total
`))
	if err != nil || len(calls) != 2 || calls["write"] != 40 || calls["read"] != 30 {
		t.Errorf("%v, %v", calls, err)
	}
	if _, err := parseCalls(nil); err == nil {
		t.Error("an empty summary is accepted")
	}
}

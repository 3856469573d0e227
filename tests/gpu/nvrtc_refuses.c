/* An NVRTC that knows no GPU: it refuses to compile, as NVRTC 12.8 does for a GB10 (sm_121).
 *
 * In LD_PRELOAD, under the soname of the real library, it takes the real one's place for a
 * process, so that the Blackwell hazard can be had on any NVIDIA GPU. Every function of NVRTC
 * is there; those that need a compiled program answer that there is none.
 *
 *   cc -shared -fPIC -DVERSION_MAJOR=13 -DVERSION_MINOR=0 -Wl,-soname,libnvrtc.so.13 \
 *      -o libnvrtc.so.13 nvrtc_refuses.c
 *
 * VERSION_*: of the NVRTC it stands in for; PyTorch names its cached kernels after it.
 */
#include <stddef.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5 };

static const char refusal[] =
    "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
static int the_program;

const char *nvrtcGetErrorString(int result)
{
    switch (result) {
    case SUCCESS: return "NVRTC_SUCCESS";
    case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
    case INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
    default: return "NVRTC_ERROR unknown";
    }
}

int nvrtcVersion(int *major, int *minor)
{
    *major = VERSION_MAJOR;
    *minor = VERSION_MINOR;
    return SUCCESS;
}

/* The newest that 12.8 knows: the list ends before sm_121. */
int nvrtcGetNumSupportedArchs(int *count) { *count = 1; return SUCCESS; }
int nvrtcGetSupportedArchs(int *archs) { archs[0] = 120; return SUCCESS; }

int nvrtcCreateProgram(void **program, const char *source, const char *name, int count,
                       const char *const *headers, const char *const *include_names)
{
    (void)source, (void)name, (void)count, (void)headers, (void)include_names;
    *program = &the_program;
    return SUCCESS;
}

int nvrtcDestroyProgram(void **program) { *program = NULL; return SUCCESS; }
int nvrtcAddNameExpression(void *program, const char *name)
{
    (void)program, (void)name;
    return SUCCESS;
}

int nvrtcCompileProgram(void *program, int count, const char *const *options)
{
    (void)program, (void)count, (void)options;
    return INVALID_OPTION;
}

int nvrtcGetProgramLogSize(void *program, size_t *size)
{
    (void)program;
    *size = sizeof refusal; /* the closing NUL included */
    return SUCCESS;
}

int nvrtcGetProgramLog(void *program, char *log)
{
    (void)program;
    memcpy(log, refusal, sizeof refusal);
    return SUCCESS;
}

#define NO_CODE(kind)                                                            \
    int nvrtcGet##kind##Size(void *program, size_t *size)                        \
    {                                                                            \
        (void)program;                                                           \
        *size = 0;                                                               \
        return INVALID_PROGRAM;                                                  \
    }                                                                            \
    int nvrtcGet##kind(void *program, char *code)                                \
    {                                                                            \
        (void)program, (void)code;                                               \
        return INVALID_PROGRAM;                                                  \
    }

NO_CODE(PTX)
NO_CODE(CUBIN)
NO_CODE(LTOIR)
NO_CODE(OptiXIR)

int nvrtcGetLoweredName(void *program, const char *name, const char **lowered)
{
    (void)program, (void)name;
    *lowered = NULL;
    return INVALID_PROGRAM;
}

int nvrtcSetFlowCallback(void *program, int (*callback)(void *, void *), void *payload)
{
    (void)program, (void)callback, (void)payload;
    return SUCCESS;
}

int nvrtcGetPCHHeapSize(size_t *size) { *size = 0; return SUCCESS; }
int nvrtcSetPCHHeapSize(size_t size) { (void)size; return SUCCESS; }
int nvrtcGetPCHCreateStatus(void *program) { (void)program; return INVALID_PROGRAM; }
int nvrtcGetPCHHeapSizeRequired(void *program, size_t *size)
{
    (void)program;
    *size = 0;
    return INVALID_PROGRAM;
}
